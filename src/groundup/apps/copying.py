"""Outputs that copy from an input: options that are spans of a text, and numbers and names that occur in it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from groundup.apps.lettered_options import ANSWER, WRONG
from groundup.corpus.language import identify
from groundup.corpus.quality.words import UNSPACED
from groundup.data.spans import NUM_OPTIONS, NUMBER_VALUES, option_spans

_CAPITALIZED_NOUNS = ("de", "lb", "nds", "als", "bar")  # languages in which a capitalized word may be any noun
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?:]['\"”]?\s*$|\n\s*$")


def schema_with_spans(schema: dict[str, Any], lists: Sequence[str], text: str) -> dict[str, Any] | None:
    """Return a JSON schema whose lists contain only spans of a text: four different spans of one type.

    The spans of a type are divided at random into four groups, and each item comes from another group, as does the
    answer if the list has the wrong options. So the items differ, and the correct span can be in any place. If an
    array has a fixed number of objects with such lists, each object gets other spans, provided that the text has enough
    of them.

    Args:
        schema: JSON schema of the output.
        lists: Names of the lists.
        text: Text to copy from.

    Returns:
        The schema, or None if the text has fewer than four spans of each type and fewer than four long words.
    """
    typed = [spans for spans in option_spans(text).values() if len(spans) >= NUM_OPTIONS]
    for spans in typed:
        random.Random(text).shuffle(spans)
    return _replaced(schema, lists, typed) if typed else None


def _replaced(schema: Any, lists: Sequence[str], typed: Sequence[Sequence[str]]) -> Any:
    if not isinstance(schema, dict):
        return [_replaced(each, lists, typed) for each in schema] if isinstance(schema, list) else schema
    properties, count = schema.get("properties", {}), schema.get("minItems")
    named = [name for name in lists if properties.get(name, {}).get("type") == "array"]
    if named:
        variants = [properties | found for spans in typed for found in _with_spans(named, spans, WRONG in named)]
        return {"anyOf": [schema | {"properties": variant} for variant in variants]}
    if isinstance(schema.get("items"), dict) and isinstance(count, int) and count == schema.get("maxItems"):
        parts = [
            # Objects that come later have other spans, or all spans if there are too few.
            [spans[place::count] if len(spans) >= NUM_OPTIONS * count else spans for spans in typed]
            for place in range(count)
        ]
        return schema | {"prefixItems": [_replaced(schema["items"], lists, part) for part in parts], "items": False}
    return {key: _replaced(value, lists, typed) for key, value in schema.items()}


def _with_spans(lists: Sequence[str], spans: Sequence[str], answered: bool) -> Iterator[dict[str, Any]]:
    """Yield properties whose items come from different groups of spans. An answer has a group of its own."""
    groups = [{"enum": spans[first::NUM_OPTIONS]} for first in range(NUM_OPTIONS)]
    if not answered:
        yield dict.fromkeys(lists, _list_of(groups))
        return
    for place, group in enumerate(groups):
        yield {ANSWER: group} | dict.fromkeys(lists, _list_of(groups[:place] + groups[place + 1 :]))


def _list_of(groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    count = len(groups)
    return {"type": "array", "prefixItems": groups, "items": False, "minItems": count, "maxItems": count}


def unsupported_facts(output: str, source: str) -> list[str]:
    """Return the numbers and names in an output that its source does not contain.

    Number words and digits are equal. A name is a capitalized word that is not the first word of a sentence. Names are
    not checked in languages that capitalize all nouns, such as German.

    Args:
        output: Generated text.
        source: Text that the output is about.
    """
    known = {number.replace(",", "") for number in _NUMBER.findall(source)}
    words = {word.casefold() for word in _WORD.findall(source)}
    known |= {str(NUMBER_VALUES[word]) for word in words & NUMBER_VALUES.keys()}
    found = []
    for match in _NUMBER.finditer(output):
        if match[0].replace(",", "").rstrip(".:") not in known:
            found.append(match[0])
    names = identify(output)[0] not in _CAPITALIZED_NOUNS
    for match in _WORD.finditer(output):
        word, before = match[0], output[: match.start()]
        first = not before.strip() or _SENTENCE_END.search(before) is not None
        value = NUMBER_VALUES.get(word.casefold())
        if (value is not None and word.casefold() not in words and str(value) not in known) or (
            names
            and len(word) > 1
            and word[:2].isalpha()
            and word[:1].isupper()
            and not first
            and not _is_known(word.casefold(), words)
        ):
            found.append(word)
    return list(dict.fromkeys(found))


def _is_known(word: str, words: set[str]) -> bool:
    return word in words or word.removesuffix("'s").removesuffix("’s") in words or f"{word}s" in words


def without_repeated_sentences(text: str) -> str:
    """Return a text without the sentences that occur earlier in it. Line breaks are kept."""
    seen = set[str]()
    lines = []
    for line in text.split("\n"):
        kept = []
        for sentence in re.split(r"(?<=[.!?])\s+", line):
            key = " ".join(_WORD.findall(sentence.casefold()) + _NUMBER.findall(sentence))
            if not key or key not in seen:
                kept.append(sentence)
                seen.add(key)
        if kept or not line.strip():
            lines.append(" ".join(kept))
    return "\n".join(lines).strip()


def position_of(output: str, text: str) -> tuple[int, int] | None:
    """Return the start and end of an output in a text, in characters, or None if it does not occur there.

    Only whole words count, so that "art" does not occur in "start". Chinese, Thai, etc. have no spaces between words.
    """
    words = output.strip()
    if not words:
        return None
    letter = rf"[^\W{UNSPACED}]"
    before, after = (f"(?<!{letter})" if words[0].isalnum() else ""), (f"(?!{letter})" if words[-1].isalnum() else "")
    found = re.search(before + re.escape(words) + after, text, re.IGNORECASE)
    return found.span() if found else None
