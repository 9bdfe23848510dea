"""The documentation site has complete navigation and a generated reference, and makes no external requests.

These tests do not need MkDocs. tests/interop/test_site.py builds the site and opens it in a browser.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from groundup.cli.commands import COMMANDS
from groundup.commands import STAGES
from groundup.core.config import settings_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LESSONS = sorted((DOCS / "learn").glob("*.md"))
PYTHON_PAGES = (*LESSONS, DOCS / "serving.md", DOCS / "training-from-python.md")
MAX_PICTURE_BYTES = 150_000


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / SITE["hooks"][0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(hooks: ModuleType) -> dict[str, str]:
    return hooks.reference_pages()


def leaves(navigation: Any) -> Iterator[str]:
    if isinstance(navigation, str):
        yield navigation
    else:
        for inner in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from leaves(inner)


def test_the_navigation_has_every_page_once() -> None:
    named = list(leaves(SITE["nav"]))
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_reference_navigation_has_every_page_once(hooks: ModuleType, reference: dict[str, str]) -> None:
    assert sorted(leaves(hooks.reference_navigation())) == sorted(reference)


def test_the_reference_has_every_command_with_its_settings(reference: dict[str, str]) -> None:
    """Each reference page contains the output of `--help`, and valid TOML that contains every setting."""
    for command, stage in COMMANDS.items():
        page = reference[f"reference/{command.replace(' ', '-')}.md"]
        assert f"Usage: groundup {command}" in page
        assert f"Example: {stage.example}" in page
        if stage.name not in STAGES:
            continue
        shown = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        assert len(shown) == 1
        assert tomllib.loads(shown[0])
        for item in settings_of(stage.config):
            assert re.search(rf"^(# )?{item.name} = |^\[{re.escape(stage.name)}\.{item.name}]", shown[0], re.MULTILINE)


def test_the_reference_contains_no_path_of_this_machine(reference: dict[str, str]) -> None:
    """A default path could have been expanded to the home directory of the user who builds the site."""
    for path, text in reference.items():
        assert str(Path.home()) not in text, path
        assert str(ROOT) not in text, path


def test_the_reference_has_the_public_packages(hooks: ModuleType) -> None:
    assert {"tokenizer", "model", "inference", "hub", "train"} <= set(hooks.public_packages())
    assert all(
        stage.module.__name__ in hooks.reference_pages()["reference/python/commands.md"] for stage in STAGES.values()
    )


def docstrings() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}", ast.get_docstring(node) or ""


def test_tags_in_docstrings_are_in_backticks() -> None:
    """Markdown copies HTML tags to the page. In a docstring, "<h1>" without backticks made the rest a heading."""
    tag = re.compile(r"<[a-zA-Z/!][^>\n]*>")
    # The test finds docstrings, and some of these docstrings contain a tag.
    assert any("`<h1>`" in text for _, text in docstrings())
    assert {where: found for where, text in docstrings() if (found := tag.findall(re.sub(r"`[^`]*`", "", text)))} == {}


def test_every_lesson_has_a_command_and_a_picture_with_alt_text() -> None:
    for page in LESSONS:
        text = page.read_text(encoding="utf-8")
        pictures = re.findall(r"!\[([^]]*)\]\(([^)]+)\)", text)
        assert re.search(r"^```sh\n(?:.*\n)*?groundup ", text, re.MULTILINE), page.name
        assert pictures or page.name == "index.md", page.name
        assert all(len(words) > 30 for words, _ in pictures), page.name


def test_pictures_are_small_and_used_and_have_a_dark_variant() -> None:
    used = {name for page in DOCS.rglob("*.md") for name in re.findall(r"\(([\w/-]+)\.png\)", page.read_text("utf-8"))}
    drawn = {path.stem for path in (DOCS / "learn").glob("*.png")}
    assert {name for name in drawn if not name.endswith("-dark")} == {Path(name).name for name in used} & drawn
    for path in (DOCS / "learn").glob("*.png"):
        assert path.stat().st_size < MAX_PICTURE_BYTES, path.name
        assert path.stem.endswith("-dark") or path.with_stem(f"{path.stem}-dark").is_file(), path.name


def test_python_of_pages_imports_existing_names() -> None:
    shown = [
        block
        for page in PYTHON_PAGES
        for block in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    ]
    imports = [node for block in shown for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    assert len(imports) >= 2
    for node in imports:
        module = importlib.import_module(str(node.module))
        assert all(hasattr(module, name.name) for name in node.names), node.module


def test_pages_load_no_fonts_or_scripts_from_other_hosts() -> None:
    """The site must work without network access."""
    assert SITE["theme"]["font"] is False
    assert "offline" in SITE["plugins"]
    assets = [*SITE["extra"]["polyfills"], *SITE["extra_css"]]
    assert any("iframe-worker" in asset for asset in assets)  # replaces a script that would be loaded from another host
    for asset in assets:
        assert "//" not in re.sub(r"^\s*//.*$", "", (DOCS / asset).read_text(encoding="utf-8"), flags=re.MULTILINE)
