"""What the documentation shows is what the program takes: recipes, settings, commands; and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import pytest

from groundup.commands import STAGES
from groundup.core.errors import ConfigError
from groundup.core.recipe import recipe_steps

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
Parse = Callable[[Sequence[str]], None]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def check(shown: str, page: str) -> None:
    """A recipe as `groundup run` checks it before its first stage starts."""
    tables = {key: value for key, value in tomllib.loads(shown).items() if key != "name"}
    assert recipe_steps(tables, Path("runs/any"), page, STAGES)


@every_page
def test_recipes_that_a_page_shows_are_valid(page: Path) -> None:
    """A key that was renamed, or never was: people copy what they read."""
    for shown in blocks(page, "toml"):
        check(shown, page.name)


def test_the_pages_show_recipes_and_a_wrong_one_is_found() -> None:
    """The blocks could be there under another name, or the check be blind: then all of the above would pass."""
    assert sum(len(blocks(page, "toml")) for page in PAGES) > 10
    with pytest.raises(ConfigError, match="treshold"):
        check("[collect.near_duplicates]\ntreshold = 0.8\n", "page.md")


@every_page
def test_no_recipe_stands_outside_of_a_block_that_is_checked(page: Path) -> None:
    rest = page.read_text(encoding="utf-8")
    for shown in blocks(page, "toml"):
        rest = rest.replace(shown, "")
    stages = "|".join({name.partition(".")[0] for name in STAGES})
    assert re.findall(rf"^ *\[\[?(?:{stages})[].].*$", rest, re.MULTILINE) == []


def commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["groundup"]:
                yield words[1:]


@every_page
def test_commands_that_a_page_shows_can_be_parsed(page: Path, parse: Parse) -> None:
    for words in commands(page):
        parse(words)


def test_the_pages_show_commands_and_a_wrong_one_is_found(parse: Parse) -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20
    with pytest.raises(click.UsageError, match="--foldre"):
        parse(["collect", "--foldre", "notes"])


@every_page
def test_links_to_files_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target
