"""The documentation, built as `make docs` builds it and opened as a file: whole without a network, on any screen."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "index.html",
    "learn/index.html",
    "learn/attention.html",
    "learn/measuring.html",
    "collecting.html",
    "apps.html",
    "reference/pretrain.html",
    "reference/python/tokenizer.html",
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(find_spec("material") is None, reason="needs MkDocs: pip install '.[docs]'"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strict: a link that leads nowhere, or a docstring that names an argument that is not there, ends it."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def opened(browser: Any, page: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    """The page in a window, and what went wrong: a message in the console, or a request that leaves the machine."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(180_000)  # a busy machine is slow, not wrong
    tab, told = context.new_page(), []
    tab.on(
        "request", lambda request: told.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    tab.on("requestfailed", lambda request: told.append(f"failed: {request.url}"))
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.goto(page.as_uri())
    return tab, told


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_are_whole_without_a_network_and_fit(browser: Any, site: Path, width: int, scheme: str) -> None:
    for name in PAGES:
        tab, told = opened(browser, site / name, width, scheme)
        tab.locator("article h1").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        shown = tab.locator("article img:visible")
        for at in range(shown.count()):
            shown.nth(at).scroll_into_view_if_needed()
            assert shown.nth(at).evaluate("it => it.decode().then(() => it.naturalWidth)") > 0, name
            source = shown.nth(at).get_attribute("src")
            assert source is not None
            # Bright paper on a dark page blinds; pictures that were taken once only are shown on both.
            if (
                (site / name)
                .parent.joinpath(source.replace("-dark", "").replace(".png", "-dark.png").partition("#")[0])
                .exists()
            ):
                assert ("-dark.png" in source) == (scheme == "dark"), source
        assert told == [], name
        tab.context.close()


def test_the_search_finds_pages_without_a_network(browser: Any, site: Path) -> None:
    """Its worker is what the theme would fetch a script for, where a page is a file."""
    tab, told = opened(browser, site / "index.html", 1440, "light")
    tab.locator(".md-search__input").first.press_sequentially("rope_theta")
    found = tab.locator(".md-search-result__link")
    found.first.wait_for()
    links = found.evaluate_all("all => all.map(it => it.href)")
    assert any("positions.html" in link or "pretrain.html" in link for link in links)
    assert told == []
    tab.context.close()


def test_nothing_in_a_page_points_to_a_script_or_a_style_of_elsewhere(site: Path) -> None:
    """Also in what no browser of this test has opened."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for mark in (
            '<script src="http',
            '<script src="//',
            'rel="stylesheet" href="http',
            'src="http',
            "@import url(http",
        ):
            assert mark not in text, page.relative_to(site)
