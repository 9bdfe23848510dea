"""Take the screenshots of docs/learn: the Studio, a report, a data card and tokenized examples.

    python tools/pictures.py RUNS --run quickstart --model smollm2 [--only NAME ...]

RUNS is a directory that `groundup studio` can show. RUNS contains a run of the recipe `quickstart` and an imported
chat model. The tool takes each screenshot in light and dark mode. Playwright, Pillow and Chromium must be installed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

OUT = Path(__file__).parents[1] / "docs" / "learn"
WIDTH = 800  # The width of the text column in the documentation, in CSS pixels.
MARGIN = 8  # The margin around the element, in CSS pixels.
MAX_BYTES = 150_000

CAPITALS = "Italy: Rome. Japan: Tokyo."
STORY = "Once upon a time there was a king. The king had three sons, and the youngest son was called John."


class Screenshots:
    """The screenshots in one color scheme. Each public method shows a page and returns the element to be captured."""

    def __init__(self, page: Page, studio: str, runs: Path, run: str, model: str) -> None:
        self.page, self.studio, self.runs, self.run, self.model = page, studio, runs, run, model

    def language_model(self) -> Locator:
        """Show the most likely alternatives to one token of a text."""
        self._inside(self.model, STORY)
        row = self.page.locator("#surprisal .tokens")
        rest = self.page.locator("#surprisal > :not(.tokens), #surprisal ~ *")
        rest.evaluate_all("all => all.forEach(it => { it.style.visibility = 'hidden'; })")
        row.evaluate("it => { it.parentElement.style.border = 'none'; it.parentElement.style.background = 'none'; }")
        self._scroll_to_top(row)
        row.locator("[data-token]", has_text="king").first.hover()
        return row

    def tokens(self) -> Locator:
        """Show the tokens of a text, colored by surprisal."""
        self._inside(f"{self.run}/base", "Tokenization is unbelievably useful: 12,345 words, naïveté and 東京.")
        return self.page.locator("#surprisal")

    def embeddings(self) -> Locator:
        """Show the nearest embeddings of a token."""
        self._inside(self.model, STORY)
        self._select_token(" king")
        expect(self.page.locator("#embeddings [aria-live]")).to_contain_text("king")
        return self.page.locator("#embeddings")

    def attention(self) -> Locator:
        """Show the attention weights of a previous-token head."""
        self._inside(self.model, STORY)
        choices = self.page.locator("#attention select")
        choices.nth(0).select_option(label="Weight on the previous token")
        choices.nth(1).select_option(label="17")  # this layer has a previous-token head
        choices.nth(2).select_option(label="1")
        self._select_token(" John")
        expect(self.page.locator("#attention [aria-live]")).to_contain_text("“ John” attends")
        return self.page.locator("#attention")

    def lens(self) -> Locator:
        """Show the logit lens."""
        self._inside(self.model, CAPITALS)
        self._select_token(":", -1)
        self.page.locator("#lens .scroll").evaluate("it => { it.style.maxHeight = 'none'; }")
        return self.page.locator("#lens")

    def positions(self) -> Locator:
        """Show the positional encoding."""
        self._inside(self.model, STORY)
        return self.page.locator("#positions")

    def weights(self) -> Locator:
        """Show the number of parameters of each part of the model."""
        self._inside(self.model, STORY)
        return self.page.locator("#parameters")

    def pipeline(self) -> Locator:
        """Show the pipeline of the quickstart's chat model."""
        self._open("report", f"{self.run}/chat")
        self.page.locator("#pipeline .step").last.wait_for()
        self.page.locator("#tabs").evaluate("it => { it.style.visibility = 'hidden'; }")
        return self.page.locator("#pipeline")

    def chat(self) -> Locator:
        """Show an answer and the alternatives to one of its tokens."""
        self._open("chat", self.model)
        self.page.get_by_label("Temperature").fill("0")
        self.page.get_by_label("Max tokens").fill("40")
        self.page.get_by_label("Color tokens").check()
        self.page.get_by_label("Your message").fill("Why is the sky blue? Answer in one sentence.")
        self.page.get_by_role("button", name="Send").click()
        self.page.get_by_role("button", name="Retry").wait_for(timeout=120_000)
        log = self.page.locator("#view-chat .log")
        rest = log.locator(".row, .answer > :last-child").or_(self.page.locator(".composer"))  # buttons and speed
        rest.evaluate_all("all => all.forEach(it => { it.style.visibility = 'hidden'; })")
        self._scroll_to_top(log.locator(".answer"))
        log.locator(".answer [data-token]").nth(6).hover()
        return log

    def funnel(self) -> Locator:
        """Show the number of documents that remain after each filter."""
        return self._figure("corpus/card.html", "#filters figure")

    def trained_tokens(self) -> Locator:
        """Show which tokens of a conversation are trained."""
        return self._figure("chat/tokens.html", "#conversations figure")

    def loss(self) -> Locator:
        """Show the loss curve."""
        return self._figure("report.html", "#training figure")

    def classes(self) -> Locator:
        """Show the accuracy of the classifier and of its baselines."""
        return self._figure("report.html", "#evaluation figure", 2)

    def compressors(self) -> Locator:
        """Show the bits per byte of the model and of compression programs."""
        return self._figure("report.html", "#evaluation figure")

    def answers(self) -> Locator:
        """Show the loss on held-out answers."""
        return self._figure("report.html", "#evaluation figure", 1)

    def _figure(self, file: str, selector: str, index: int = 0) -> Locator:
        self.page.goto((self.runs / self.run / file).resolve().as_uri())
        figure = self.page.locator(selector).nth(index)
        figure.locator("details").evaluate_all("all => all.forEach(it => it.remove())")
        return figure

    def _inside(self, model: str, text: str) -> None:
        self._open("inside", model)
        self.page.get_by_label("Text to analyze").fill(text)
        analyze = self.page.get_by_role("button", name="Analyze")
        analyze.click(timeout=120_000)
        expect(analyze).to_be_enabled(timeout=120_000)

    def _open(self, view: str, model: str) -> None:
        self.page.goto("about:blank")  # otherwise, a new hash in the URL would keep the state of the page
        self.page.goto(f"{self.studio}#/{view}")
        self.page.locator("#model").select_option(model)

    def _scroll_to_top(self, element: Locator) -> None:
        """Scroll the element to the top, so that the tooltip opens below it."""
        self.page.evaluate("() => { document.body.style.paddingBottom = '100vh'; }")
        element.evaluate("it => scrollTo(0, scrollY + it.getBoundingClientRect().top - 8)")

    def _select_token(self, text: str, index: int = 0) -> None:
        words = self.page.locator("#surprisal [data-token]").all()
        [word for word in words if word.text_content() == text][index].click()
        self.page.wait_for_load_state("networkidle")
        self.page.keyboard.press("Escape")


NAMES = [name for name in vars(Screenshots) if not name.startswith("_")]


@contextmanager
def studio_url(runs: Path) -> Iterator[str]:
    """Run the Studio within the context, and yield its URL."""
    command = [sys.executable, "-m", "groundup", "studio", str(runs), "--port", "0", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


def screenshot(page: Page, element: Locator) -> bytes:
    """Return a PNG image of an element. If a tooltip is shown, the image includes the tooltip."""
    element.scroll_into_view_if_needed()
    boxes = [
        box
        for each in (element, page.locator("#tooltip:not([hidden])"))
        if each.count() and (box := each.bounding_box())
    ]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    clip = {
        "x": left - MARGIN,
        "y": top - MARGIN,
        "width": right - left + 2 * MARGIN,
        "height": bottom - top + 2 * MARGIN,
    }
    return page.screenshot(
        clip={"x": max(0, clip["x"]), "y": max(0, clip["y"]), "width": clip["width"], "height": clip["height"]}
    )


def save(png: bytes, path: Path) -> None:
    """Save a PNG image with 256 colors, which are sufficient for charts."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {image.width} x {image.height}, {size:,} bytes")
    assert size <= MAX_BYTES, path


def main() -> None:
    """Take the screenshots that `--only` names, or all screenshots."""
    parser = argparse.ArgumentParser(description="Take the screenshots of docs/learn.")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--run", default="quickstart")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    args = parser.parse_args()
    with studio_url(args.runs) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=args.chromium)
        for scheme, suffix in (("light", ""), ("dark", "-dark")):
            context = browser.new_context(
                viewport={"width": WIDTH, "height": 1400}, device_scale_factor=2, color_scheme=scheme
            )
            screenshots = Screenshots(context.new_page(), url, args.runs, args.run, args.model)
            for name in args.only:
                take: Callable[[], Locator] = getattr(screenshots, name)
                save(screenshot(screenshots.page, take()), OUT / f"{name.replace('_', '-')}{suffix}.png")
            context.close()


if __name__ == "__main__":
    main()
