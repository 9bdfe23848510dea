"""The HTML of a run report: self-contained, accessible, and safe with hostile data."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_reader import Element, parse
from synthetic_run import Json, MakeRun, inject, inject_card

from groundup.core.checksums import write_checked_json
from groundup.core.errors import FormatError
from groundup.report import read_run, render


@pytest.fixture
def page(make_run: MakeRun) -> Element:
    return parse(render(read_run(make_run())))


def test_the_page_has_no_external_resources(make_run: MakeRun) -> None:
    """External resources break offline and reveal the reader's address."""
    text = render(read_run(make_run()))
    tree = parse(text)
    assert not re.search(r"(?i)\bhttps?:|//[a-z]|url\(|@import|\bsrcset?=", text)
    links = [e.attributes["href"] for e in tree.walk() if "href" in e.attributes]
    ids = {e.attributes["id"] for e in tree.walk() if "id" in e.attributes}
    assert links
    assert {link.removeprefix("#") for link in links} <= ids
    assert {e.name for e in tree.walk()} & {"link", "img", "iframe", "object", "form", "base", "use", "image"} == set()


def test_the_policy_allows_only_the_inline_style_and_script(page: Element) -> None:
    """The policy protects the reader even if text is not escaped."""
    metas = [e for e in page.all("meta") if "http-equiv" in e.attributes]
    policy = dict(rule.strip().split(" ", 1) for rule in metas[0].attributes["content"].split(";"))

    def digest(element: Element) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256("".join(element.own_text).encode()).digest()).decode() + "'"

    assert policy == {
        "default-src": "'none'",
        "style-src": digest(page.all("style")[0]),
        "script-src": digest(page.all("script")[0]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert [e for e in page.walk() if "style" in e.attributes] == []  # the policy blocks style attributes


def test_data_never_becomes_markup(make_run: MakeRun) -> None:
    """Hostile names and texts must not change any element or attribute."""

    def edit(facts: Json) -> None:
        for part in ("base", "report", "chat", "classifier"):
            facts[part] = inject(facts[part])

    plain, hostile = make_run("plain"), make_run("hostile", edit=edit)
    inject_card(hostile)
    text = render(read_run(hostile))
    assert text.count("alert(1)") > 60  # the hostile texts are on the page
    shapes = parse(text).shape(), parse(render(read_run(plain))).shape()
    differences = [(n, *pair) for n, pair in enumerate(zip_longest(*shapes)) if pair[0] != pair[1]]
    assert differences[:1] == []
    assert "<script>alert" not in text
    text.encode("utf-8")  # a lone surrogate could not be written
    assert not {"\x00", "\u202e"} & set(text)


def test_each_chart_has_a_title_a_description_and_a_data_table(page: Element) -> None:
    """Screen readers need a text alternative."""
    charts = page.all("svg", role="img")
    assert len(charts) >= 10
    ids = [e.attributes["id"] for e in page.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for chart in charts:
        title, description = chart.attributes["aria-labelledby"].split()
        texts = {e.attributes["id"]: e.text for e in chart.children if e.name in ("title", "desc")}
        assert texts[title] and texts[description], chart.attributes
    for figure in page.all("figure"):
        assert figure.all("table") or not figure.all("svg"), figure.text


def test_heading_levels_and_landmarks_are_correct(page: Element) -> None:
    levels = [int(e.name[1]) for e in page.walk() if re.fullmatch(r"h[1-6]", e.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [len(page.all(name)) for name in ("header", "main", "footer", "nav")] == [1, 1, 1, 1]
    assert page.all("html")[0].attributes["lang"] == "en"
    for region in page.all("div", class_="scroll"):  # scrollable with the keyboard
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-label"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**30), 10**30) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


RECORDS = [(part, "artifact.json") for part in ("base", "chat", "classifier", "corpus", "tokens", "report")]
RECORDS += [("report", "report.json"), ("corpus", "card.json")]


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in paths_of(item, (*path, key)))]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_unexpected_facts_do_not_break_the_page(data: st.DataObject, complete_run: Path) -> None:
    """Records of other releases may lack keys or have other types. The page then omits content."""
    part, name = data.draw(st.sampled_from(RECORDS))
    file = complete_run / part / name
    before = file.read_text(encoding="utf-8")
    record = json.loads(before)
    record.pop("checksum", None)
    paths = [each for each in paths_of(record) if each and each != ("format_version",)]
    *parents, last = path = data.draw(st.sampled_from(paths))
    holder = record
    for key in parents:
        holder = holder[key]
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = data.draw(JSON)
    write_checked_json(file, record)
    try:
        parse(render(read_run(complete_run)))
    except FormatError:  # only the required fields of an artifact may cause an error
        assert name == "artifact.json"
        assert path[0] != "facts" or len(path) == 1
    finally:
        file.write_text(before, encoding="utf-8")


@pytest.fixture
def complete_run(make_run: MakeRun) -> Path:
    """A complete run without shards, because reading them is slow."""
    directory = make_run()
    for shard in (directory / "corpus").glob("*.parquet"):
        shard.unlink()
    return directory


def test_the_page_of_a_large_run_is_small(make_run: MakeRun) -> None:
    """A phone must be able to open a page with 60,000 steps, 77 labels and 200 sources."""

    def edit(facts: Json) -> None:
        facts["steps"] = 60_000
        labels = [f"label number {n}" for n in range(77)]
        facts["classifier"]["labels"] = labels
        rows = [[40 if a == b else (a * b) % 3 for b in range(77)] for a in range(77)]
        facts["classifier"]["test"]["confusion"] = rows
        facts["report"]["samples"] *= 50

    directory = make_run(edit=edit)
    path = directory / "corpus" / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["sources"] = [source | {"name": f"source {n}"} for source in card["sources"] for n in range(200)]
    path.write_text(json.dumps(card), encoding="utf-8")
    assert len(render(read_run(directory)).encode()) < 400_000


def test_reports_do_not_import_torch() -> None:
    code = "import sys, groundup.report, groundup.commands.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
