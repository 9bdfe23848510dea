"""Checks of instructions that a program can verify, similar to IFEval (Zhou et al. 2023, arXiv:2311.07911).

Each check is a pure function of an answer and an argument. To add a check, write a function and decorate it with
`_check`. Its name and the type of its argument become the key and the value in a task's data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from inspect import get_annotations
from typing import Any, get_args

from groundup.core.config import nearest
from groundup.core.errors import DataError
from groundup.corpus.language import identify
from groundup.corpus.quality.sentences import split_sentences

Words = str | list[str]

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+\S", re.MULTILINE)
_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)

CHECKS: dict[str, Callable[[str, Any], bool]] = {}


def _check(function: Callable[[str, Any], bool]) -> Callable[[str, Any], bool]:
    CHECKS[function.__name__] = function
    return function


def passed_checks(text: str, checks: Mapping[str, Any]) -> dict[str, bool]:
    """Return which checks an answer passes. An empty answer passes no check.

    Args:
        text: answer.
        checks: argument of each check, keyed by the name of the check; see `require_checks`.
    """
    return {name: bool(text.strip()) and CHECKS[name](text, argument) for name, argument in checks.items()}


def require_checks(checks: Any, where: str) -> dict[str, Any]:
    """Return the checks of an item if they are valid.

    Args:
        checks: value of the item's column `checks`, such as `{"max_words": 20, "starts_with": "Dear"}`.
        where: name of the item in error messages.

    Raises:
        DataError: a check is unknown, or its argument has the wrong type.
    """
    if isinstance(checks, str) and checks.lstrip().startswith("{"):  # A cell of a CSV file.
        try:
            checks = json.loads(checks)
        except ValueError:
            checks = None
    if not isinstance(checks, Mapping) or not checks:
        raise DataError(
            f"{where}: checks = {json.dumps(checks, default=str)[:80]}",
            rule="the column checks has an object with a check's name and argument",
            fix='Write, for example: "checks": {"max_words": 20, "contains": ["apples", "pears"]}.',
        )
    for name, argument in checks.items():
        if name not in CHECKS:
            close = nearest(name, CHECKS)
            fix = f"Did you mean {close}?" if close else f"Use one of: {', '.join(sorted(CHECKS))}."
            raise DataError(f"{where}: unknown check {name!r}", fix=fix)
        kind = get_annotations(CHECKS[name], eval_str=True)["argument"]
        if not _has_type(argument, kind):
            shown = {int: "a number", bool: "true or false", str: "a text", Words: "a text or a list of texts"}[kind]
            raise DataError(
                f"{where}: {name} = {json.dumps(argument, default=str)[:80]}",
                rule=f"the argument of {name} is {shown}",
                fix="Correct the argument.",
            )
    return dict(checks)


def _has_type(argument: Any, kind: Any) -> bool:
    if kind == Words:
        listed = [argument] if isinstance(argument, str) else argument
        return isinstance(listed, list) and bool(listed) and all(isinstance(each, str) and each for each in listed)
    return isinstance(argument, get_args(kind) or kind) and isinstance(argument, bool) == (kind is bool)


@_check
def max_words(text: str, argument: int) -> bool:
    """Return whether a text has at most this number of words."""
    return _num_words(text) <= argument


@_check
def min_words(text: str, argument: int) -> bool:
    """Return whether a text has at least this number of words."""
    return _num_words(text) >= argument


@_check
def max_sentences(text: str, argument: int) -> bool:
    """Return whether a text has at most this number of sentences."""
    return _num_sentences(text) <= argument


@_check
def min_sentences(text: str, argument: int) -> bool:
    """Return whether a text has at least this number of sentences."""
    return _num_sentences(text) >= argument


@_check
def max_characters(text: str, argument: int) -> bool:
    """Return whether a text has at most this number of characters."""
    return len(text.strip()) <= argument


@_check
def paragraphs(text: str, argument: int) -> bool:
    """Return whether a text has exactly this number of paragraphs, which are separated by empty lines."""
    return sum(bool(part.strip()) for part in re.split(r"\n[ \t]*\n", text)) == argument


@_check
def lines(text: str, argument: int) -> bool:
    """Return whether a text has exactly this number of lines that are not empty."""
    return sum(bool(line.strip()) for line in text.splitlines()) == argument


@_check
def bullets(text: str, argument: int) -> bool:
    """Return whether a text has exactly this number of lines that begin with "-", "*" or "•"."""
    return len(_BULLET.findall(text)) == argument


@_check
def contains(text: str, argument: Words) -> bool:
    """Return whether a text contains all of these words or phrases. Case is ignored."""
    return all(_occurs(each, text) for each in _listed(argument))


@_check
def excludes(text: str, argument: Words) -> bool:
    """Return whether a text contains none of these words or phrases. Case is ignored."""
    return not any(_occurs(each, text) for each in _listed(argument))


@_check
def starts_with(text: str, argument: Words) -> bool:
    """Return whether a text begins with this text, or with one of several texts. Case is ignored."""
    return text.strip().casefold().startswith(tuple(each.casefold() for each in _listed(argument)))


@_check
def ends_with(text: str, argument: Words) -> bool:
    """Return whether a text ends with this text, or with one of several texts. Case is ignored."""
    return text.strip().casefold().endswith(tuple(each.casefold() for each in _listed(argument)))


@_check
def one_of(text: str, argument: Words) -> bool:
    """Return whether a text is one of these texts. Case and a full stop at the end are ignored."""
    return text.strip().rstrip(".").casefold() in {each.rstrip(".").casefold() for each in _listed(argument)}


@_check
def lowercase(text: str, argument: bool) -> bool:
    """Return whether a text has no uppercase letters, or, if the argument is false, has some."""
    return (text == text.lower()) == argument


@_check
def uppercase(text: str, argument: bool) -> bool:
    """Return whether a text has no lowercase letters, or, if the argument is false, has some."""
    return (text == text.upper()) == argument


@_check
def commas(text: str, argument: bool) -> bool:
    """Return whether a text contains a comma, or, if the argument is false, contains none."""
    return ("," in text) == argument


@_check
def quoted(text: str, argument: bool) -> bool:
    """Return whether a text is enclosed in double quotation marks, or, if the argument is false, is not."""
    return (len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"') == argument


@_check
def title(text: str, argument: bool) -> bool:
    """Return whether a text has a title such as `<<title>>`, or, if the argument is false, has none."""
    return bool(re.search(r"<<[^\n<>]+>>", text)) == argument


@_check
def valid_json(text: str, argument: bool) -> bool:
    """Return whether a text, or the code block that it consists of, is valid JSON; false: whether it is not."""
    fenced = _FENCED.match(text)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return not argument
    return argument


@_check
def language(text: str, argument: str) -> bool:
    """Return whether a text is in the language with this ISO 639 code."""
    return identify(text)[0] == argument


def _listed(words: Words) -> list[str]:
    return [words] if isinstance(words, str) else words


def _num_words(text: str) -> int:
    return len(_WORD.findall(text))


def _num_sentences(text: str) -> int:
    return sum(bool(part.strip()) for line in text.splitlines() for part in split_sentences(line))


def _occurs(words: str, text: str) -> bool:
    # Only whole words count, so that "art" does not occur in "start".
    before, after = (r"(?<!\w)" if words[0].isalnum() else ""), (r"(?!\w)" if words[-1].isalnum() else "")
    return re.search(before + re.escape(words.casefold()) + after, text.casefold()) is not None
