"""The page of a data card: whole, safe, small, and with the figures of the card."""

from __future__ import annotations

import copy
import itertools
import json
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from made_up_run import HOSTILE, Json, spoil
from page_reader import Element, parse

from groundup.corpus import read_card
from groundup.report import render_card

# What no small corpus has; the keys are those of the card, the figures made up.
MORE: Json = {
    "near_duplicates": {
        "documents": 900,
        "existing": 50,
        "dropped": 41,
        "clusters": [
            {"kept": "0f" * 16, "dropped": 30, "sample": ["page.html", "This site uses cookies.\nAccept all"]},
            {"kept": "1e" * 16, "dropped": 11},  # of an earlier release
        ],
    },
    "decontamination": {
        "documents": 3,
        "ngram": 13,
        "items": 120,
        "items_too_short": 4,
        "items_only_template": 1,
        "files": {"questions.jsonl": {"items": 120, "found": 2}},
        "found": [{"item": "questions.jsonl#7", "documents": 2, "samples": ["a.html", "b.html"]}],
    },
    "quality": {"good": 80, "bad": 70, "auc": 0.973, "good_kept": 0.95, "bad_kept": 0.06},
}
SOURCE: Json = {
    "languages": {"en": [90, 9000], "fr": [10, 1000]},
    "lengths": {"64": 10, "1024": 90},
    "masked": {"email": 12, "iban": 3},
    "cut": {"c4": 500},
    "dates": ["2019-03-01", "2024-11-30"],
    "mixture": {"epochs": 4.0, "wanted": 0.5, "limited": True},
}


@pytest.fixture
def card(half_run: Path) -> Json:
    """Of a real corpus, with all that a large one could have."""
    found = copy.deepcopy(read_card(half_run / "corpus")) | copy.deepcopy(MORE)
    found["sources"][0] |= copy.deepcopy(SOURCE)
    return found


def page_of(card: Json) -> Element:
    return parse(render_card(card))


def test_it_asks_nothing_of_anybody_and_every_chart_is_told(card: Json) -> None:
    text = render_card(card)
    page = parse(text)
    assert not re.search(r"(?i)url\(|@import|\bsrcset?=", text)
    ids = [e.attributes["id"] for e in page.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    links = {e.attributes["href"].removeprefix("#") for e in page.walk() if "href" in e.attributes}
    assert links <= set(ids)
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert [e for e in page.walk() if "style" in e.attributes] == []
    charts = page.all("svg", role="img")
    assert len(charts) == 5  # funnel, languages, lengths, masked, mixture
    for chart in charts:
        title, description = chart.attributes["aria-labelledby"].split()
        told = {e.attributes["id"]: e.text for e in chart.children if e.name in ("title", "desc")}
        assert told[title] and told[description]
    levels = [int(e.name[1]) for e in page.walk() if re.fullmatch(r"h[1-6]", e.name)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_it_tells_what_the_card_tells(card: Json) -> None:
    sections = {e.attributes["id"]: e.text for e in page_of(card).all("section")}
    assert list(sections) == ["passage", "origins", "texts", "checks"]
    for said in ("2019-03-01 to 2024-11-30", "4.00 times, the limit", "private"):
        assert said in sections["origins"]
    assert "90 documents · 90.0 %" in sections["texts"]
    assert "1 KiB to 2 KiB" in sections["texts"]
    assert "128 B to 256 B0 documents" in sections["texts"]  # a gap is drawn, not closed
    for said in (
        "email",
        "41 were nearly the same",
        "This site uses cookies. Accept all",
        f"groundup corpus explain CORPUS {'0f' * 16}",
        "questions.jsonl#7",
        "kept 95.0 % of the wanted and 6.0 % of the other",
    ):
        assert said in sections["checks"]


def test_foreign_text_is_never_markup(card: Json) -> None:
    hostile = spoil(card)
    for source in hostile["sources"]:
        for table in ("drops", "languages", "masked", "provenance", "cut"):
            source[table] = {key + HOSTILE: value for key, value in source[table].items()}
    hostile["decontamination"]["files"] = {HOSTILE: {"items": 1, "found": 1}}
    text = render_card(hostile)
    assert text.count("alert(1)") > 20
    assert "<script>alert" not in text
    spoilt, sound = parse(text).shape(), page_of(card).shape()
    assert [pair for pair in zip_longest(spoilt, sound) if pair[0] != pair[1]][:1] == []
    text.encode("utf-8")


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in paths_of(item, (*path, key)))]


def test_a_card_with_other_things_in_it_is_drawn_all_the_same(card: Json) -> None:
    """Cards of other releases, or mended by hand: a page with less is the answer."""
    card["sources"][0]["drops"] = dict(list(card["sources"][0]["drops"].items())[:1])
    values = itertools.cycle((None, "x", -1, 1e300, [], [[]], {}, {"a": {}}, {"-1": 2, "9" * 20: 1}))
    whole = json.dumps(card)
    for *parents, last in (path for path in paths_of(card) if path):
        for value in itertools.islice(values, 2):
            changed = json.loads(whole)
            holder = changed
            for key in parents:
                holder = holder[key]
            holder[last] = value
            assert render_card(changed)


def test_thousands_of_sources_and_reasons_stay_small(card: Json) -> None:
    source = card["sources"][0]
    source["drops"] |= {
        f"unsupported format .{n}": {"step": "reading", "documents": n, "bytes": n, "samples": [["a", "b", "c" * 300]]}
        for n in range(500)
    }
    source["languages"] = {f"x{n}": [1, n] for n in range(500)}
    source["masked"] = {f"pattern {n}": n for n in range(500)}
    source["provenance"] = {"addresses": "https://example.org/file " * 5000}
    card["sources"] = [source | {"name": f"source {n}"} for n in range(200)]
    text = render_card(card)
    assert len(text.encode()) < 300_000
    assert "160 smaller sources more" in text
