"""Static files of the page: safe handling of text, no external requests, and complete imports."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

STATIC = Path(str(files("groundup.studio").joinpath("static")))
FILES = sorted(STATIC.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


def test_the_page_is_packaged() -> None:
    assert {"index.html", "studio.css", "main.js"} <= {path.name for path in FILES}
    assert len(SCRIPTS) > 8


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_parse_text_as_markup_or_code(path: Path) -> None:
    """Model output, file names and data cards are untrusted."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|DOMParser|javascript:"
    )
    assert re.findall(forbidden, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_contain_no_external_urls(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+|@import|url\((?!#)", text) == []


def test_the_page_has_no_inline_script_or_style() -> None:
    """The Content-Security-Policy blocks them without an error on the page."""
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_imported_names_are_exported(path: Path) -> None:
    for names, module in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', path.read_text(encoding="utf-8")):
        exported = set(
            re.findall(r"export (?:async )?(?:function\*? |class |const |let )(\w+)", (STATIC / module).read_text())
        )
        assert {name.strip() for name in names.split(",") if name.strip()} <= exported
