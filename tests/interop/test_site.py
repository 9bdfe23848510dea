"""Build the documentation site like `make docs` and open it from disk in a browser."""

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
    """Build in strict mode: broken links and docstrings with unknown arguments are errors."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def opened(browser: Any, page: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    """Open a page; return it and a list of console messages, errors and requests to other hosts."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(180_000)  # the machine may be busy
    tab, problems = context.new_page(), []
    tab.on(
        "request",
        lambda request: problems.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
    )
    tab.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(page.as_uri())
    return tab, problems


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_load_without_a_network_and_fit_the_screen(browser: Any, site: Path, width: int, scheme: str) -> None:
    for name in PAGES:
        tab, problems = opened(browser, site / name, width, scheme)
        tab.locator("article h1").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        shown = tab.locator("article img:visible")
        for at in range(shown.count()):
            shown.nth(at).scroll_into_view_if_needed()
            assert shown.nth(at).evaluate("it => it.decode().then(() => it.naturalWidth)") > 0, name
            source = shown.nth(at).get_attribute("src")
            assert source is not None
            # Pictures without a dark variant are shown in both schemes.
            if (
                (site / name)
                .parent.joinpath(source.replace("-dark", "").replace(".png", "-dark.png").partition("#")[0])
                .exists()
            ):
                assert ("-dark.png" in source) == (scheme == "dark"), source
        assert problems == [], name
        tab.context.close()


def test_the_search_finds_pages_without_a_network(browser: Any, site: Path) -> None:
    """For file: URLs, the theme would load a script from another host to run the search worker."""
    tab, problems = opened(browser, site / "index.html", 1440, "light")
    tab.locator(".md-search__input").first.press_sequentially("rope_theta")
    found = tab.locator(".md-search-result__link")
    found.first.wait_for()
    links = found.evaluate_all("all => all.map(it => it.href)")
    assert any("positions.html" in link or "pretrain.html" in link for link in links)
    assert problems == []
    tab.context.close()


def test_pages_have_no_scripts_or_styles_of_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in (
            '<script src="http',
            '<script src="//',
            'rel="stylesheet" href="http',
            'src="http',
            "@import url(http",
        ):
            assert tag not in text, page.relative_to(site)
