"""Spans of a text that can be the answer to a question: numbers, names and phrases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Literal

SpanType = Literal["number", "name", "phrase"]

NUM_OPTIONS = 4  # of a multiple-choice question
_MAX_NAME_WORDS, _MAX_PHRASE_WORDS = 5, 3
_MAX_OPTION_CHARACTERS = 60
_MAX_OPTION_SPANS = 40  # per type; a larger schema takes longer to compile
_NUMBER_WORDS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half third "
    "quarter dozen"
)
NUMBER_VALUES = {
    word: value
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
    if value != 1  # "one" is often a pronoun
}
_NUMBER = re.compile(rf"\d|\b(?:{_NUMBER_WORDS.replace(' ', '|')})s?\b", re.IGNORECASE)
_WORD = re.compile(r"[\w$€£%]+(?:['’.,:/-]\w+)*%?")
_ARTICLES = ("a", "an", "the")
_INSIDE_NAMES = ("of", "the", "and", "de", "la", "von", "van", "der", "del", "di")
# A phrase does not contain these words, which connect phrases.
_CONNECTING_WORDS = (
    "a an the and or but nor so if than that this these those which who whom whose what when where why how while "
    "because although though since until unless as at by for from in into of off on onto out over through to up with "
    "about after before between during under without is are was were be been being am do does did done has have had "
    "having can could will would shall should may might must not no it its he she they them their his her him hers we "
    "us our you your i me my there here then also only very too more most less least such some any each every both "
    "all many much few other another same own just even still yet ever never often always one now"
)
_WORDS_BEFORE_PHRASES = "a an the of in on at by for from with into his her its our"
_BEFORE_PHRASES = frozenset(_WORDS_BEFORE_PHRASES.split())
_CONNECTING = frozenset(_CONNECTING_WORDS.split())


def normalized_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without articles and punctuation."""
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in _ARTICLES]


def occurs_in(span: str, text: str) -> bool:
    """Return whether the words of a span occur in a text, in the same order and without gaps."""
    words = normalized_words(span)
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(normalized_words(text))} "


def common_type(options: Sequence[str], source: str) -> SpanType | None:
    """Return the type that all options have, or None if their types differ.

    A capitalized word that does not occur in the text can be a name or the first word of a phrase, so it fits both.

    Args:
        options: Texts to compare.
        source: Text that the options are about, which shows whether a capitalized word is a name.
    """
    types = [_possible_types(option, source) for option in options]
    shared = set.intersection(*types) if types else set()
    return next((kind for kind in ("number", "name", "phrase") if kind in shared), None)


def _possible_types(option: str, source: str) -> set[SpanType]:
    if _NUMBER.search(option):
        return {"number"}
    words = [word for word in _WORD.findall(option) if word.casefold() not in _ARTICLES]
    if not words:
        return set()
    if not all(word[:1].isupper() or word in _INSIDE_NAMES for word in words):
        return {"phrase"}
    in_lower_case = re.search(rf"\b{re.escape(words[0].lower())}\b", source) is not None
    if len(words) > 1:
        return {"name"}
    if in_lower_case:
        return {"phrase"}
    # Not the first word of a sentence: the text itself capitalizes it.
    named = re.search(rf"[\w,;] {re.escape(words[0])}\b", source) is not None
    return {"name"} if named else {"name", "phrase"}


def spans_of(text: str) -> dict[SpanType, list[str]]:
    """Return the distinct spans of a text by their type, in the order of the text.

    Names are sequences of capitalized words inside a sentence. Phrases follow an article, a possessive or a
    preposition, such as "fertile mud" in "of fertile mud". Numbers include the words after them, such as "340 euros".

    Args:
        text: Text to search.
    """
    found: dict[SpanType, dict[str, str]] = {"number": {}, "name": {}, "phrase": {}}
    for kind, span in _typed_spans(text):
        found[kind].setdefault(" ".join(normalized_words(span)), span)
    return {kind: list(spans.values()) for kind, spans in found.items()}


def option_spans(text: str) -> dict[SpanType, list[str]]:
    """Return the spans of a text that can be options of a multiple-choice question, by their type.

    Spans that are parts of others are left out, because both could be the correct option. If there are too few spans,
    words are used as phrases.

    Args:
        text: Text that the question is about.
    """
    typed = spans_of(text)
    if max(map(len, typed.values())) < NUM_OPTIONS:
        typed["phrase"] = content_words(text)
    found = {}
    for kind, spans in typed.items():
        usable = [span for span in spans if span.isdigit() or 2 <= len(span) <= _MAX_OPTION_CHARACTERS]
        if kind != "number":
            usable = [span for span in usable if not any(span != other and span in other for other in usable)]
        found[kind] = usable[:_MAX_OPTION_SPANS]
    return found


def content_words(text: str) -> list[str]:
    """Return the distinct words of at least five lower-case letters that are not connecting words."""
    words = [word for word in re.findall(r"[^\W\d_]{5,}", text) if word.islower() and word not in _CONNECTING]
    return [word for word in dict.fromkeys(words) if not _NUMBER.search(word)]


def _typed_spans(text: str) -> Iterator[tuple[SpanType, str]]:
    for segment in re.split(r"[.!?;:,](?:\s|$)|[()\[\]\"“”]|\n", text):
        words = _WORD.findall(segment)
        start = 0
        while start < len(words):
            end = start
            while end < len(words) and _continues(words, start, end):
                end += 1
            if end == start:
                start += 1
                continue
            before = words[start - 1].casefold() if start else ""
            found = _typed(words[start:end], before)
            if found is not None:
                yield found
            start = end


def _continues(words: Sequence[str], start: int, end: int) -> bool:
    word = words[end]
    if word.casefold() not in _CONNECTING:
        return True
    # "Bank of England" is one name.
    inside = start < end and end + 1 < len(words) and word in _INSIDE_NAMES
    return inside and words[end - 1][:1].isupper() and words[end + 1][:1].isupper()


def _typed(words: Sequence[str], before: str) -> tuple[SpanType, str] | None:
    """Return the type of a sequence of words between connecting words, and its part that is a span, or None."""
    number = next((place for place, word in enumerate(words) if _NUMBER.search(word)), None)
    if number is not None:
        end = number + 1
        # "two million euros" and "half past six": numbers, a unit, and further numbers
        while end < len(words) and (_NUMBER.search(words[end]) or _NUMBER.search(words[end - 1])):
            end += 1
        return "number", " ".join(words[number:end])
    named = list(takewhile(lambda word: word[:1].isupper() or word in _INSIDE_NAMES, words))
    while named and named[-1] in _INSIDE_NAMES:
        named.pop()
    # The first word of a sentence is capitalized in any case.
    if named and named[0][:1].isupper() and (len(named) > 1 or before):
        return ("name", " ".join(named)) if len(named) <= _MAX_NAME_WORDS else None
    if before in _BEFORE_PHRASES and len(words) <= _MAX_PHRASE_WORDS and words[0][:1].islower():
        return "phrase", " ".join(words)
    return None
