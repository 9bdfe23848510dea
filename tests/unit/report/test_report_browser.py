"""Run reports in a real browser: no requests, no injected scripts, no overflow, and sufficient contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_run import Json, MakeRun, inject, inject_card

from groundup.report import read_run, render

pytestmark = pytest.mark.interop

# Each text with the contrast ratio of its color and background (WCAG 2.2, relative luminance).
CONTRASTS = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || element.closest("script, style, title, desc, caption, [hidden], .skip")) continue;
    if (element.closest("details:not([open])") && !element.closest("summary")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(element.closest("svg") ? style.fill : style.color)), light(background(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.data.trim().slice(0, 40)]);
  }
  return found;
}"""

# Elements wider than the window, except scrollable ones, and chart labels that overflow or overlap.
MISPLACED = """() => {
  const wide = [], wrong = [];
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    const exempt = element.closest(".scroll, pre, .skip, caption, svg");
    if (!exempt && box.width && box.right > innerWidth + 0.5) wide.push(element.tagName + "." + element.className);
  }
  for (const svg of document.querySelectorAll("svg[role=img]")) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    for (const [text, box] of texts) {
      const inside = box.left >= frame.left - 1 && box.right <= frame.right + 1 &&
        box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
      if (box.width && !inside) wrong.push("overflow: " + text);
    }
    texts.forEach(([text, a], index) => texts.slice(index + 1).forEach(([other, b]) => {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 0 && y > 2) wrong.push("overlap: " + text + " | " + other);
    }));
  }
  return [document.documentElement.scrollWidth - innerWidth, wide, wrong];
}"""


@pytest.fixture
def hostile(make_run: MakeRun) -> Path:
    """The report of a run in which each text is hostile."""

    def edit(facts: Json) -> None:
        for part in ("base", "report", "chat", "classifier"):
            facts[part] = inject(facts[part])

    directory = make_run(edit=edit)
    inject_card(directory)
    return write_report(directory)


def write_report(directory: Path) -> Path:
    page = directory / "report.html"
    page.write_text(render(read_run(directory)), encoding="utf-8")
    return page


def open_report(browser: Any, page: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    """Open a page; return the tab, and a list of its requests, console messages and errors."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab, problems = context.new_page(), []
    tab.on("request", lambda request: problems.append(request.url) if request.url != page.as_uri() else None)
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: (problems.append("a dialog"), dialog.dismiss()))
    tab.goto(page.as_uri())
    return tab, problems


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_and_has_sufficient_contrast(browser: Any, make_run: MakeRun, width: int, scheme: str) -> None:
    tab, problems = open_report(browser, write_report(make_run()), width, scheme)
    for folded in (True, False):
        overflow, wide, wrong = tab.evaluate(MISPLACED)
        assert overflow <= 0, wide
        assert wide == []
        assert wrong == []
        contrasts = tab.evaluate(CONTRASTS)
        assert len(contrasts) > 150
        assert [(round(ratio, 2), text) for ratio, text in contrasts if ratio < 4.5] == []
        if folded:
            tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert problems == []
    tab.context.close()


@pytest.mark.parametrize("labels", [12, 40])
def test_long_names_and_many_labels_fit_a_phone(browser: Any, make_run: MakeRun, labels: int) -> None:
    def edit(facts: Json) -> None:
        names = [f"a_rather_long_label_without_any_space_number_{n}" for n in range(labels)]
        facts["classifier"]["labels"] = names
        facts["classifier"]["test"]["confusion"] = [[(a * b) % 7 for b in range(labels)] for a in range(labels)]
        facts["classifier"]["majority"]["label"] = names[0]

    tab, problems = open_report(
        browser, write_report(make_run("a_run_with_a_name_that_is_much_too_long_for_a_phone", edit=edit)), 390, "dark"
    )
    assert tab.evaluate(MISPLACED) == [0, [], []]
    assert problems == []
    tab.context.close()


def test_hostile_data_runs_no_script_and_sends_no_request(browser: Any, hostile: Path) -> None:
    tab, problems = open_report(browser, hostile, 390, "light")
    tab.wait_for_timeout(200)
    assert tab.evaluate("document.querySelectorAll('script').length") == 1
    assert tab.evaluate("document.querySelectorAll('img, iframe, object, link, [onerror], [onload]').length") == 0
    for _ in range(2):
        overflow, wide, wrong = tab.evaluate(MISPLACED)
        assert overflow <= 0
        assert wide == []
        assert wrong == []
        tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert problems == []
    tab.context.close()


def test_the_pointer_shows_values_of_a_curve(browser: Any, make_run: MakeRun) -> None:
    """The policy allows the script, which shows the nearest point."""
    tab, problems = open_report(browser, write_report(make_run()), 1440, "light")
    chart = tab.locator("svg[data-points]").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    assert "nats per token" in tab.locator("#reading").inner_text()
    tab.mouse.move(5, 5)
    assert tab.locator("#reading").is_hidden()
    assert problems == []
    tab.context.close()


def test_all_controls_can_be_reached_with_the_keyboard(browser: Any, make_run: MakeRun) -> None:
    tab, _ = open_report(browser, write_report(make_run()), 1440, "light")
    expected = tab.evaluate("document.querySelectorAll('a[href], summary, [tabindex]').length")
    seen = set()
    for _ in range(expected + 5):
        tab.keyboard.press("Tab")
        seen.add(tab.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    hidden = tab.evaluate("document.querySelectorAll('details:not([open]) [tabindex]').length")
    assert len(seen - {-1, 2}) >= expected - hidden
    tab.context.close()
