"""A fixture that parses command lines like the program, but does not run the commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
import pytest

from groundup.cli import cli


@pytest.fixture(scope="session")
def parse() -> Callable[[Sequence[str]], None]:
    """Return a function that parses the words after `groundup`. It raises ConfigError or click.UsageError."""

    def parse(words: Sequence[str]) -> None:
        found: click.Command | None = cli
        name, context = "groundup", None
        while isinstance(found, click.Group):
            context = found.make_context(name, list(words), parent=context)
            name, *words = words
            found = found.get_command(context, name)
        assert found is not None, name
        found.make_context(name, list(words), parent=context)

    return parse
