"""The HTML page of a data card: content, size, and safe handling of hostile data."""

from __future__ import annotations

import copy
import itertools
import json
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from page_reader import Element, parse
from synthetic_run import HOSTILE, Json, inject

from groundup.corpus import read_card
from groundup.report import render_card

# Fields that a small corpus lacks; all numbers are made up.
MORE: Json = {
    "near_duplicates": {
        "documents": 900,
        "existing": 50,
        "dropped": 41,
        "clusters": [
            {"kept": "0f" * 16, "dropped": 30, "sample": ["page.html", "This site uses cookies.\nAccept all"]},
            {"kept": "1e" * 16, "dropped": 11},  # no sample
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
    """The data card of a real corpus with all optional fields."""
    card = copy.deepcopy(read_card(half_run / "corpus")) | copy.deepcopy(MORE)
    card["sources"][0] |= copy.deepcopy(SOURCE)
    return card


def page_of(card: Json) -> Element:
    return parse(render_card(card))


def test_the_page_is_self_contained_and_accessible(card: Json) -> None:
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
        texts = {e.attributes["id"]: e.text for e in chart.children if e.name in ("title", "desc")}
        assert texts[title] and texts[description]
    levels = [int(e.name[1]) for e in page.walk() if re.fullmatch(r"h[1-6]", e.name)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_page_has_the_content_of_the_card(card: Json) -> None:
    page = page_of(card)
    assert re.search(rf"of text, from {len(card['sources'])} sources?\.", page.text)
    sections = {e.attributes["id"]: e.text for e in page.all("section")}
    assert list(sections) == ["filters", "sources", "statistics", "checks"]
    for text in ("2019-03-01 to 2024-11-30", "4.00 epochs, the maximum", "private"):
        assert text in sections["sources"]
    assert "90 documents · 90.0 %" in sections["statistics"]
    assert "1 KiB to 2 KiB" in sections["statistics"]
    assert "128 B to 256 B0 documents" in sections["statistics"]  # empty bins are shown
    for text in (
        "email",
        "Dropped 41 near-duplicates",
        "This site uses cookies. Accept all",
        f"groundup corpus explain CORPUS {'0f' * 16}",
        "questions.jsonl#7",
        "keeps 95.0 % of the positive examples and 6.0 % of the negative examples",
    ):
        assert text in sections["checks"]


def test_data_never_becomes_markup(card: Json) -> None:
    hostile = inject(card)
    for source in hostile["sources"]:
        for table in ("drops", "languages", "masked", "provenance", "cut"):
            source[table] = {key + HOSTILE: value for key, value in source[table].items()}
    hostile["decontamination"]["files"] = {HOSTILE: {"items": 1, "found": 1}}
    text = render_card(hostile)
    assert text.count("alert(1)") > 20
    assert "<script>alert" not in text
    shapes = parse(text).shape(), page_of(card).shape()
    assert [pair for pair in zip_longest(*shapes) if pair[0] != pair[1]][:1] == []
    text.encode("utf-8")


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in paths_of(item, (*path, key)))]


def test_unexpected_values_do_not_break_the_page(card: Json) -> None:
    """Cards of other releases may lack keys or have other types. The page then omits content."""
    card["sources"][0]["drops"] = dict(list(card["sources"][0]["drops"].items())[:1])
    values = itertools.cycle((None, "x", -1, 1e300, [], [[]], {}, {"a": {}}, {"-1": 2, "9" * 20: 1}))
    original = json.dumps(card)
    for *parents, last in (path for path in paths_of(card) if path):
        for value in itertools.islice(values, 2):
            changed = json.loads(original)
            holder = changed
            for key in parents:
                holder = holder[key]
            holder[last] = value
            assert render_card(changed)


def test_the_page_of_a_large_card_is_small(card: Json) -> None:
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
    assert "160 smaller sources not shown" in text
