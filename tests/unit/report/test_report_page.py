"""The page itself: whole, self-contained, accessible, and no text of the data becomes a part of its markup."""

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
from made_up_run import Json, MakeRun, spoil, spoil_card
from page_reader import Element, parse

from groundup.core.errors import FormatError
from groundup.report import read_run, render


@pytest.fixture
def page(make_run: MakeRun) -> Element:
    return parse(render(read_run(make_run())))


def test_it_asks_nothing_of_anybody(make_run: MakeRun) -> None:
    """A page that loads a font tells a stranger who reads it, and breaks offline."""
    text = render(read_run(make_run()))
    tree = parse(text)
    assert not re.search(r"(?i)\bhttps?:|//[a-z]|url\(|@import|\bsrcset?=", text)
    links = [e.attributes["href"] for e in tree.walk() if "href" in e.attributes]
    ids = {e.attributes["id"] for e in tree.walk() if "id" in e.attributes}
    assert links
    assert {link.removeprefix("#") for link in links} <= ids
    assert {e.name for e in tree.walk()} & {"link", "img", "iframe", "object", "form", "base", "use", "image"} == set()


def test_its_policy_forbids_everything_but_its_own_style_and_script(page: Element) -> None:
    """The second fence: were an escape ever missing, the browser would still run and load nothing."""
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
    assert [e for e in page.walk() if "style" in e.attributes] == []  # the policy would drop them


def test_no_text_of_the_data_becomes_markup(make_run: MakeRun) -> None:
    """A document, a label or a source may be called anything; every element and attribute must stay what it was."""

    def edit(facts: Json) -> None:
        for part in ("base", "report", "chat", "classifier"):
            facts[part] = spoil(facts[part])

    plain, hostile = make_run("plain"), make_run("hostile", edit=edit)
    spoil_card(hostile)
    text = render(read_run(hostile))
    assert text.count("alert(1)") > 60  # the texts did get in
    spoilt, sound = parse(text).shape(), parse(render(read_run(plain))).shape()
    differences = [(n, *pair) for n, pair in enumerate(zip_longest(spoilt, sound)) if pair[0] != pair[1]]
    assert differences[:1] == []
    assert "<script>alert" not in text
    text.encode("utf-8")  # a lone surrogate would end the writing of the file
    assert not {"\x00", "\u202e"} & set(text)


def test_every_chart_has_a_title_a_description_and_its_figures(page: Element) -> None:
    """Who does not see the drawing reads what it says."""
    charts = page.all("svg", role="img")
    assert len(charts) >= 10
    ids = [e.attributes["id"] for e in page.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for chart in charts:
        title, description = chart.attributes["aria-labelledby"].split()
        told = {e.attributes["id"]: e.text for e in chart.children if e.name in ("title", "desc")}
        assert told[title] and told[description], chart.attributes
    for figure in page.all("figure"):
        assert figure.all("table") or not figure.all("svg"), figure.text


def test_headings_go_down_one_step_at_a_time_and_landmarks_are_there(page: Element) -> None:
    levels = [int(e.name[1]) for e in page.walk() if re.fullmatch(r"h[1-6]", e.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [len(page.all(name)) for name in ("header", "main", "footer", "nav")] == [1, 1, 1, 1]
    assert page.all("html")[0].attributes["lang"] == "en"
    for region in page.all("div", class_="scroll"):  # what scrolls must be reachable without a mouse
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
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in paths_of(item, (*path, key)))]


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_facts_of_another_kind_leave_a_page_all_the_same(data: st.DataObject, whole_run: Path) -> None:
    """Records of other releases, or mended by hand, lack keys or hold other things; a page with less is the answer."""
    part, name = data.draw(st.sampled_from(RECORDS))
    file = whole_run / part / name
    before = file.read_text(encoding="utf-8")
    record = json.loads(before)
    record.pop("checksum", None)  # as an earlier release wrote it: with one, a change is damage
    places = [path for path in paths_of(record) if path and path != ("format_version",)]
    *parents, last = place = data.draw(st.sampled_from(places))
    holder = record
    for key in parents:
        holder = holder[key]
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = data.draw(JSON)
    file.write_text(json.dumps(record), encoding="utf-8")
    try:
        parse(render(read_run(whole_run)))
    except FormatError:  # the frame of a record, which all stages rely on, may be refused: with the file's name
        assert name == "artifact.json"
        assert place[0] != "facts" or len(place) == 1
    finally:
        file.write_text(before, encoding="utf-8")


@pytest.fixture
def whole_run(make_run: MakeRun) -> Path:
    """Without shards: reading them is most of a page's time, and they are not what is spoilt here."""
    directory = make_run()
    for shard in (directory / "corpus").glob("*.parquet"):
        shard.unlink()
    return directory


def test_a_large_run_still_fits(make_run: MakeRun) -> None:
    """60,000 steps, 77 labels and 200 sources must not make a page that a phone cannot open."""

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


def test_it_needs_no_torch() -> None:
    code = "import sys, groundup.report, groundup.commands.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
