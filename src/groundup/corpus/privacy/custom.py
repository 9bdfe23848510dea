"""Detection of values by user-defined regular expressions, which the RE2 library matches in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from groundup.core.errors import ConfigError
from groundup.corpus.privacy.spans import Finder, NormalizedText, Span

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def pattern_finders(patterns: Mapping[str, str]) -> list[Finder]:
    """Return one finder for each pattern.

    Args:
        patterns: Regular expressions in RE2 syntax, keyed by the name of the pattern.

    Raises:
        ConfigError: A name is invalid, RE2 rejects a pattern, or a pattern matches the empty string.
    """
    return [_finder(name, pattern) for name, pattern in patterns.items()]


def _finder(name: str, pattern: str) -> Finder:
    import re2

    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"invalid pattern name {name!r}",
            rule="a name consists of lowercase letters, digits and _, and begins with a letter",
            fix="Rename the pattern. For example, matches of employee_number are masked as [EMPLOYEE_NUMBER].",
        )
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise ConfigError(
            f"invalid pattern {name} = {pattern!r}",
            rule=f"RE2 reports: {reason}",
            fix="Correct the regular expression. RE2 does not support lookarounds and backreferences.",
        ) from None
    if compiled.search(""):
        raise ConfigError(
            f"pattern {name} = {pattern!r} matches the empty string",
            rule="such a pattern matches at every position of a text",
            fix="Require at least one character, e.g. with + instead of *.",
        )

    def find(view: NormalizedText) -> Iterator[Span]:
        text = view.original.encode("utf-8", "replace").decode()  # RE2 rejects lone surrogates
        for found in compiled.finditer(text):
            if found.end() > found.start():
                yield Span(found.start(), found.end(), name)

    return find
