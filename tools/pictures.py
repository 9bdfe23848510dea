"""Draws the pictures of docs/learn again: what the Studio, the report, the data card and a Label X-ray show.

    python tools/pictures.py HOME --run quickstart --model smollm2 [--only NAME ...]

HOME is a directory as `groundup studio` takes it, with a run of the recipe `quickstart` and an imported model that
chats. Each picture is taken twice, on light and on dark paper. It needs playwright, Pillow, and a Chromium of the
system.
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
WIDTH = 800  # CSS pixels: as wide as a page of the documentation shows its pictures
EDGE = 8  # of paper around what is shown
MOST_BYTES = 150_000

CAPITALS = "Italy: Rome. Japan: Tokyo."
STORY = "Once upon a time there was a king. The king had three sons, and the youngest son was called John."


class Shots:
    """What can be taken, on a page of one colour scheme."""

    def __init__(self, page: Page, studio: str, home: Path, run: str, model: str) -> None:
        self.page, self.studio, self.home, self.run, self.model = page, studio, home, run, model

    def language_model(self) -> Locator:
        """What a model expected at one place of a text."""
        self._inside(self.model, STORY)
        row = self.page.locator("#surprise .tokens")
        rest = self.page.locator("#surprise > :not(.tokens), #surprise ~ *")
        rest.evaluate_all("all => all.forEach(it => { it.style.visibility = 'hidden'; })")
        row.evaluate("it => { it.parentElement.style.border = 'none'; it.parentElement.style.background = 'none'; }")
        self._to_the_top(row)
        row.locator("[data-token]", has_text="king").first.hover()
        return row

    def tokens(self) -> Locator:
        self._inside(f"{self.run}/base", "Tokenization is unbelievably useful: 12,345 words, naïveté and 東京.")
        return self.page.locator("#surprise")

    def embeddings(self) -> Locator:
        self._inside(self.model, STORY)
        self._choose(" king")
        expect(self.page.locator("#neighbours [aria-live]")).to_contain_text("king")
        return self.page.locator("#neighbours")

    def attention(self) -> Locator:
        self._inside(self.model, STORY)
        choices = self.page.locator("#attention select")
        choices.nth(0).select_option(label="the token before")
        choices.nth(1).select_option(label="17")  # where the map shows a head that does so
        choices.nth(2).select_option(label="1")
        self._choose(" John")
        expect(self.page.locator("#attention [aria-live]")).to_contain_text("From “ John”")
        return self.page.locator("#attention")

    def lens(self) -> Locator:
        self._inside(self.model, CAPITALS)
        self._choose(":", -1)
        self.page.locator("#lens .scroll").evaluate("it => { it.style.maxHeight = 'none'; }")
        return self.page.locator("#lens")

    def positions(self) -> Locator:
        self._inside(self.model, STORY)
        return self.page.locator("#positions")

    def weights(self) -> Locator:
        self._inside(self.model, STORY)
        return self.page.locator("#weights")

    def road(self) -> Locator:
        self._open("report", f"{self.run}/chat")
        self.page.locator("#road .station").last.wait_for()
        self.page.locator("#tabs").evaluate("it => { it.style.visibility = 'hidden'; }")
        return self.page.locator("#road")

    def chat(self) -> Locator:
        """An answer, and what one of its words could have been."""
        self._open("chat", self.model)
        self.page.get_by_label("Temperature").fill("0")
        self.page.get_by_label("Most tokens").fill("40")
        self.page.get_by_label("Colour the tokens").check()
        self.page.get_by_label("You say").fill("Why is the sky blue? Answer in one sentence.")
        self.page.get_by_role("button", name="Send").click()
        self.page.get_by_role("button", name="Retry").wait_for(timeout=120_000)
        log = self.page.locator("#view-chat .log")
        rest = log.locator(".row, .answer > :last-child").or_(self.page.locator(".composer"))  # buttons, speed
        rest.evaluate_all("all => all.forEach(it => { it.style.visibility = 'hidden'; })")
        self._to_the_top(log.locator(".answer"))
        log.locator(".answer [data-token]").nth(6).hover()
        return log

    def funnel(self) -> Locator:
        return self._figure("corpus/card.html", "#passage figure")

    def xray(self) -> Locator:
        return self._figure("chat/xray.html", "#conversations figure")

    def loss(self) -> Locator:
        return self._figure("report.html", "#learned figure")

    def classes(self) -> Locator:
        return self._figure("report.html", "#can-do figure", 2)

    def compressors(self) -> Locator:
        return self._figure("report.html", "#can-do figure")

    def answers(self) -> Locator:
        return self._figure("report.html", "#can-do figure", 1)

    def _figure(self, file: str, selector: str, place: int = 0) -> Locator:
        self.page.goto((self.home / self.run / file).resolve().as_uri())
        figure = self.page.locator(selector).nth(place)
        figure.locator("details").evaluate_all("all => all.forEach(it => it.remove())")
        return figure

    def _inside(self, model: str, text: str) -> None:
        self._open("inside", model)
        self.page.get_by_label("A text").fill(text)
        read = self.page.get_by_role("button", name="Read it")
        read.click(timeout=120_000)
        expect(read).to_be_enabled(timeout=120_000)

    def _open(self, view: str, model: str) -> None:
        self.page.goto("about:blank")  # or else the page stays, with what it has read before
        self.page.goto(f"{self.studio}#/{view}")
        self.page.locator("#model").select_option(model)

    def _to_the_top(self, element: Locator) -> None:
        """So that what is told of a token goes below it, and hides nothing."""
        self.page.evaluate("() => { document.body.style.paddingBottom = '100vh'; }")
        element.evaluate("it => scrollTo(0, scrollY + it.getBoundingClientRect().top - 8)")

    def _choose(self, text: str, place: int = 0) -> None:
        words = self.page.locator("#surprise [data-token]").all()
        [word for word in words if word.text_content() == text][place].click()
        self.page.wait_for_load_state("networkidle")
        self.page.keyboard.press("Escape")


NAMES = [name for name in vars(Shots) if not name.startswith("_")]


@contextmanager
def studio_of(home: Path) -> Iterator[str]:
    """The address of a Studio that ends with the block."""
    command = [sys.executable, "-m", "groundup", "studio", str(home), "--port", "0", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


def picture(page: Page, element: Locator) -> bytes:
    """The element, and what the Studio tells beside it."""
    element.scroll_into_view_if_needed()
    boxes = [
        box for each in (element, page.locator("#told:not([hidden])")) if each.count() and (box := each.bounding_box())
    ]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    clip = {"x": left - EDGE, "y": top - EDGE, "width": right - left + 2 * EDGE, "height": bottom - top + 2 * EDGE}
    return page.screenshot(
        clip={"x": max(0, clip["x"]), "y": max(0, clip["y"]), "width": clip["width"], "height": clip["height"]}
    )


def save(taken: bytes, path: Path) -> None:
    """As a PNG of few colours; a chart needs no more."""
    image = Image.open(io.BytesIO(taken)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {image.width} x {image.height}, {size:,} bytes")
    assert size <= MOST_BYTES, path


def main() -> None:
    """Take them all, or those of `--only`."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/learn again.")
    parser.add_argument("home", type=Path)
    parser.add_argument("--run", default="quickstart")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    given = parser.parse_args()
    with studio_of(given.home) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=given.chromium)
        for scheme, mark in (("light", ""), ("dark", "-dark")):
            context = browser.new_context(
                viewport={"width": WIDTH, "height": 1400}, device_scale_factor=2, color_scheme=scheme
            )
            shots = Shots(context.new_page(), url, given.home, given.run, given.model)
            for name in given.only:
                take: Callable[[], Locator] = getattr(shots, name)
                save(picture(shots.page, take()), OUT / f"{name.replace('_', '-')}{mark}.png")
            context.close()


if __name__ == "__main__":
    main()
