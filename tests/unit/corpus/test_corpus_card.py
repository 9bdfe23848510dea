"""Untrusted text in the card is escaped, and sums of counts do not depend on the order."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.core.files import write_json
from groundup.core.types import Document
from groundup.corpus.card import Tally, read_card, total
from groundup.corpus.card_text import write_card
from groundup.corpus.drop_log import DropRecord


def _tally(*drops: tuple[str, str]) -> Tally:
    tally = Tally(files=1)
    for reason, text in drops:
        tally.drop(DropRecord("s", "file", "length", reason, bytes=len(text), beginning=text))
    tally.keep(Document(text="kept ü", source="s", origin="o"))
    return tally


def test_sums_do_not_depend_on_order() -> None:
    parts = [_tally(*((reason, f"{n}{reason}") for reason in "ab")) for n in range(7)]
    expected = total(parts).to_json()
    assert expected["bytes"] == 7 * len("kept ü".encode())
    assert len(expected["drops"]["a"]["samples"]) == 3
    for order in itertools.islice(itertools.permutations(parts), 0, 5040, 501):
        assert total(Tally.from_json(part.to_json()) for part in order).to_json() == expected


def test_untrusted_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> | [x](javascript:1) `code` ![i](u) \n# head \x1b[31m \ud800"
    tally = _tally(("duplicate", evil))
    source = {"name": evil, "genre": "a|b", "license": "*", "provenance": {"folder": evil}, **tally.to_json()}
    share = {"documents": 1, "bytes": 1}
    stored = source["name"] = source["provenance"]["folder"] = evil.replace("\ud800", "")
    clusters = [{"kept": "0f" * 16, "dropped": 2, "sample": [stored, stored]}, {"kept": "1e" * 16, "dropped": 1}]
    near = {"documents": 9, "dropped": 3, "clusters": clusters}
    card = {"train": share, "validation": share, "sources": [source], "near_duplicates": near}
    write_card(tmp_path, card)
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\x1b" not in text
    assert "](" not in text
    assert not any(line.startswith("# head") for line in text.splitlines())
    row = next(line for line in text.splitlines() if "a&#124;b" in line)
    assert row.count("|") == 8
    assert read_card(tmp_path)["sources"][0]["genre"] == "a|b"


def test_card_of_a_newer_release(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needed: a corpus"):
        read_card(tmp_path)
    write_json(tmp_path / "card.json", {"format_version": 99})
    with pytest.raises(DataError, match="Upgrade"):
        read_card(tmp_path)
