"""Conversion of a text to index terms: Unicode words, stems, and character bigrams of scripts without spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from groundup.corpus.quality.words import UNSPACED

TERMS_VERSION = 1  # increased when the terms of a text change, so that an older index is refused

# Languages of the Snowball stemmers (Porter 2001, https://snowballstem.org), by ISO 639-1 code.
_STEMMERS = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
_STOP_WORDS = {
    "da": "DANISH", "de": "GERMAN", "en": "EN_PLUS", "es": "SPANISH", "fr": "FRENCH", "it": "ITALIAN", "nl": "DUTCH",
    "no": "NORWEGIAN", "pt": "PORTUGUESE", "ru": "RUSSIAN", "sv": "SWEDISH", "tr": "TURKISH",
}  # fmt: skip
_QUESTION_WORDS = {"en": frozenset({"many", "much"})}  # question words that are not in the list of bm25s
_ASCII_WORD = re.compile(r"\d+(?:[.,]\d+)+|[a-z0-9]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_GROUPS = re.compile(r"(?<=\d),(?=\d{3}\b)")


@lru_cache(maxsize=1)
def _word() -> re.Pattern[str]:
    """Return the pattern of words. Combining marks, such as the vowel signs of Hindi, belong to their word."""
    marks = (mark for mark in map(chr, range(0x300, 0x10000)) if unicodedata.category(mark)[0] == "M")
    inside = "".join(mark for mark in marks if not re.match(f"[{UNSPACED}]", mark))
    return re.compile(rf"\d+(?:[.,]\d+)+|[{UNSPACED}]+|(?:[^\W_{UNSPACED}]|[{inside}])+")


def words(text: str) -> list[str]:
    """Return the lower-case words and numbers of a text in compatibility form (NFKC).

    A run of characters of a script without spaces, such as Chinese or Thai, becomes its overlapping character bigrams.

    Args:
        text: The text.
    """
    if text.isascii():
        return [_GROUPS.sub("", word) for word in _ASCII_WORD.findall(text.lower())]
    found = _word().findall(unicodedata.normalize("NFKC", text).casefold())
    return [part for word in found for part in _parts(word)]


def _parts(word: str) -> Iterator[str]:
    if not re.match(f"[{UNSPACED}]", word):
        yield _GROUPS.sub("", word)
    elif len(word) == 1:
        yield word
    else:
        yield from map("".join, pairwise(word))


@lru_cache(maxsize=32)
def _stemmer(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(_STEMMERS[language]) if language in _STEMMERS else None


def terms(text: str, language: str) -> list[str]:
    """Return the index terms of a text: its words, reduced to stems if the language has a Snowball stemmer.

    Args:
        text: The text.
        language: ISO 639-1 code, or "" for no stemming.
    """
    found = words(text)
    stemmer = _stemmer(language)
    return found if stemmer is None else stemmer.stemWords(found)


def content_terms(text: str, language: str) -> list[str]:
    """Return the index terms of a text without stop words, unless the text has no other words.

    Args:
        text: The text.
        language: ISO 639-1 code, or "" for no stemming.
    """
    found, stop = words(text), stop_words(language)
    content = [word for word in found if word not in stop] or found
    stemmer = _stemmer(language)
    return content if stemmer is None else stemmer.stemWords(content)


def query_terms(question: str, languages: Sequence[str], common: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the terms to search for: for each content word of a question, its stems in the languages of an index.

    Stop words, such as "what" and "the", are left out unless the question has no other words.

    Args:
        question: The question.
        languages: ISO 639-1 codes of the languages of the index.
        common: Languages whose stop words are left out. "Die" is a stop word in German and not in English.

    Returns:
        The variants of each distinct word.
    """
    found = list(dict.fromkeys(words(question)))
    stop = frozenset[str]().union(*(stop_words(language) for language in common))
    content = [word for word in found if word not in stop] or found
    stemmed = dict.fromkeys(language if language in _STEMMERS else "" for language in languages or ("",))
    stemmers = [_stemmer(language) for language in stemmed]
    variants = [
        tuple(dict.fromkeys(word if stemmer is None else stemmer.stemWord(word) for stemmer in stemmers))
        for word in content
    ]
    return list(dict.fromkeys(variants))


@lru_cache(maxsize=32)
def stop_words(language: str) -> frozenset[str]:
    """Return the function words of a language. The set is empty for a language without a list."""
    if language not in _STOP_WORDS:
        return frozenset()
    from bm25s import stopwords

    listed = getattr(stopwords, f"STOPWORDS_{_STOP_WORDS[language]}")
    return frozenset(part for word in listed for part in words(word)) | _QUESTION_WORDS.get(language, frozenset())


def numbers(text: str) -> set[str]:
    """Return the numbers of a text in digits, without thousands separators."""
    return {_GROUPS.sub("", number) for number in _NUMBER.findall(unicodedata.normalize("NFKC", text))}
