"""A user's own patterns, in an engine that cannot be made to run for ever."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from groundup.core.errors import ConfigError
from groundup.corpus.privacy.spans import Finder, NormalizedText, Span

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def pattern_finders(patterns: Mapping[str, str]) -> list[Finder]:
    """One finder a pattern, in RE2's syntax: its time grows with the text alone, whatever the pattern.

    Raises:
        ConfigError: a name that makes no mark, or a pattern that RE2 does not know or that fits no character.
    """
    return [_finder(name, pattern) for name, pattern in patterns.items()]


def _finder(name: str, pattern: str) -> Finder:
    import re2

    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"patterns: {name!r}",
            rule="a pattern's name has small letters, digits and _, and begins with a letter",
            fix="Rename it, e.g. employee_number, which masks as [EMPLOYEE_NUMBER].",
        )
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise ConfigError(
            f"patterns: {name} = {pattern!r}",
            rule=f"a pattern is a regular expression that RE2 knows ({said})",
            fix="Mend it; RE2 has no look-around and no back-references, so that no text can stall it.",
        ) from None
    if compiled.search(""):
        raise ConfigError(
            f"patterns: {name} = {pattern!r}",
            rule="a pattern must not match an empty text: it would match everywhere",
            fix="Ask for one character at least: + instead of *.",
        )

    def find(view: NormalizedText) -> Iterator[Span]:
        text = view.original.encode("utf-8", "replace").decode()  # RE2 takes no lone surrogates
        for found in compiled.finditer(text):
            if found.end() > found.start():
                yield Span(found.start(), found.end(), name)

    return find
