"""Novelty: how unlike its training texts an input of a classifier is.

A classifier has to choose one of its labels, for gibberish as well. Its probabilities do not show this: SmolLM2 gave
random letters a label with probability 0.999. A character n-gram model of the training texts shows it: gibberish and
other languages take more bits per character than the training texts do (Cavnar and Trenkle 1994, "N-Gram-Based Text
Categorization"). Smoothing is that of Witten and Bell (1991, "The zero-frequency problem").

The threshold is a quantile of the training texts' own scores, each by a model without that text, so that at most 5 % of
new texts from the same source exceed it on average (conformal prediction, Vovk et al. 2005).

Shape letters: P places of characters in a text, G n-grams, K contexts, N orders of n-grams.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file

NOVELTY_FILE = "novelty.safetensors"
FALSE_ALARMS = 0.05  # maximum share of texts like the training texts that should be flagged
_QUANTILE = 0.96  # of the training texts' scores; 0.95 flagged 5.7 % of others (4 tables, 20 splits, 120 rows each)
UNLIKE = "above 1 a text is unlike the training texts, and its label may be meaningless."
NO_NOVELTY = "Novelty is unknown: this classifier has no novelty.safetensors. Train it again to get one."
_FORMAT_VERSION = 1
_ARRAYS = ("grams", "counts", "contexts", "totals", "kinds")
_ORDERS = 5  # n-grams of 1 to 5 characters
_ALPHABET = 256.0  # an unseen character has probability 1/256 before smoothing
_MAX_COUNTED = 300_000  # characters of the training texts: more change scores by little
_MAX_READ = 4_000  # characters of one text
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no character of a polynomial hash is lost

_Hashes = npt.NDArray[np.uint64]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NoveltyScore:
    """The novelty score of one text.

    Attributes:
        novelty: bits per character, divided by the threshold: above 1 the text is unlike the training texts.
    """

    novelty: float

    @property
    def unlike(self) -> bool:
        """Whether the text is flagged as unlike the training texts."""
        return self.novelty > 1


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """A character n-gram model with a threshold.

    Attributes:
        grams: (G,), hashes of the n-grams of all orders, sorted, with their `counts`.
        contexts: (K,), hashes of what precedes the last character of an n-gram, sorted; with the number of n-grams
            after each (`totals`) and of different ones (`kinds`).
        threshold: bits per character.
        false_alarms: share of the held-out texts that are flagged; None: not measured.
        held_out: number of these texts.
    """

    grams: _Hashes
    counts: _Counts
    contexts: _Hashes
    totals: _Counts
    kinds: _Counts
    threshold: float
    false_alarms: float | None = None
    held_out: int = 0

    @classmethod
    def fit(cls, texts: Sequence[str], *, seed: int) -> Novelty:
        """Count the n-grams of the training texts, or of a sample of them, and choose the threshold."""
        chosen: list[tuple[_Hashes, _Hashes]] = []
        counted = 0
        for place in random.Random(seed).sample(range(len(texts)), len(texts)):
            if counted >= _MAX_COUNTED:
                break
            chosen.append(_hashes(texts[place]))
            counted += len(chosen[-1][0]) // _ORDERS
        grams, first, counts = np.unique(
            np.concatenate([each for each, _ in chosen]), return_index=True, return_counts=True
        )
        context_of_gram = np.concatenate([each for _, each in chosen])[first]
        contexts, inverse, kinds = np.unique(context_of_gram, return_inverse=True, return_counts=True)
        totals = np.bincount(inverse, counts).astype(np.int64)
        fitted = cls(grams, counts, contexts, totals, kinds, 1.0)
        bits = sorted(fitted._bits(*each, leave_out=True) for each in chosen)
        place = math.ceil((len(bits) + 1) * _QUANTILE) - 1
        return replace(fitted, threshold=max(bits[min(place, len(bits) - 1)], 1e-3))

    def of(self, text: str) -> NoveltyScore:
        """Return the novelty score of a text."""
        return NoveltyScore(self._bits(*_hashes(text)) / self.threshold)

    def tested(self, texts: Sequence[str]) -> Novelty:
        """Return a copy with the false-alarm rate on held-out texts."""
        flagged = sum(self.of(text).unlike for text in texts)
        return replace(self, false_alarms=flagged / len(texts), held_out=len(texts))

    @property
    def sentence(self) -> str:
        """The false-alarm rate, as a sentence for the user."""
        rule = f"intended: at most {FALSE_ALARMS:.0%}"
        if self.false_alarms is None:
            return f"Novelty: no held-out texts to measure false alarms on ({rule})."
        return f"Novelty: flags {self.false_alarms:.1%} of {self.held_out:,} held-out texts as unlike ({rule})."

    def to_json(self) -> dict[str, Any]:
        """Return the facts for the artifact."""
        return {
            "bits_per_character": self.threshold,
            "intended_false_alarms": FALSE_ALARMS,
            "false_alarms": self.false_alarms,
            "held_out": self.held_out,
        }

    def save(self, directory: Path) -> Path:
        """Write `novelty.safetensors`."""
        from safetensors.numpy import save

        path = directory / NOVELTY_FILE
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        measured = {} if self.false_alarms is None else {"false_alarms": repr(self.false_alarms)}
        facts = {"format_version": str(_FORMAT_VERSION), "threshold": repr(self.threshold)}
        with atomic_file(path) as temporary:
            temporary.write_bytes(save(arrays, facts | measured | {"held_out": str(self.held_out)}))
        return path

    @classmethod
    def load(cls, directory: Path) -> Novelty | None:
        """Read the novelty score of a classifier's directory; None if it has none.

        Raises:
            FormatError: the file is damaged, or of a later format.
        """
        from safetensors import SafetensorError, safe_open

        path = directory / NOVELTY_FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as stored:
                facts = stored.metadata() or {}
                if facts.get("format_version") != str(_FORMAT_VERSION):
                    raise ValueError(f"format_version {facts.get('format_version')}")
                arrays = {name: stored.get_tensor(name) for name in _ARRAYS}
            rate = facts.get("false_alarms")
            measured = None if rate is None else float(rate)
            found = cls(
                threshold=float(facts["threshold"]), false_alarms=measured, held_out=int(facts["held_out"]), **arrays
            )
            found._require_sound()
        except (SafetensorError, KeyError, ValueError) as error:
            raise FormatError(
                f"{path}: {str(error)[:200]}",
                rule="it holds the novelty score of the classifier next to it",
                fix="Get the classifier again, or delete this file: then novelty is not reported.",
            ) from None
        return found

    def _require_sound(self) -> None:
        """Raise ValueError unless the arrays fit together."""
        sized = len(self.grams) == len(self.counts), len(self.contexts) == len(self.totals) == len(self.kinds)
        if not all(sized) or not len(self.grams) or not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError("arrays of different lengths, or no threshold")

    def _bits(self, grams: _Hashes, contexts: _Hashes, *, leave_out: bool = False) -> float:
        """Return the bits per character of a text.

        Args:
            grams, contexts: (N * P,), see `_hashes`.
            leave_out: the text is one of those that were counted; score it as if it were not.
        """
        counts = _looked_up(self.grams, self.counts, grams)
        totals = _looked_up(self.contexts, self.totals, contexts)
        kinds = _looked_up(self.contexts, self.kinds, contexts)
        if leave_out:
            _, first, gram_of, own = np.unique(grams, return_index=True, return_inverse=True, return_counts=True)
            gone = counts[first] == own  # n-grams that only this text has
            _, context_of, within = np.unique(contexts, return_inverse=True, return_counts=True)
            counts = counts - own[gram_of]
            totals = totals - within[context_of]
            kinds = kinds - np.bincount(context_of[first], gone, len(within)).astype(np.int64)[context_of]
        probability_P = np.full(len(grams) // _ORDERS, 1 / _ALPHABET)
        for count, total, kind in zip(*(each.reshape(_ORDERS, -1) for each in (counts, totals, kinds)), strict=True):
            known = total > 0
            interpolated = (count + kind * probability_P) / np.maximum(total + kind, 1)
            probability_P = np.where(known, interpolated, probability_P)
        return float(-np.log2(probability_P).mean())


def _hashes(text: str) -> tuple[_Hashes, _Hashes]:
    """Return hashes of the n-grams that end at each character, by order, and of their contexts: (N * P,) each.

    Case and the amount of white space do not count. The text's end is a space; before its start there are spaces.
    """
    words = f" {' '.join(text[:_MAX_READ].lower().split())} "
    codes = np.frombuffer((" " * (_ORDERS - 1) + words).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    places = np.arange(_ORDERS, len(codes))
    grams, contexts = [], []
    for order in range(_ORDERS):
        context = np.full(len(places), order + 1, dtype=np.uint64)
        for back in range(order, 0, -1):
            context = context * _MULTIPLIER + codes[places - back].astype(np.uint64) + np.uint64(1)
        contexts.append(context)
        grams.append(
            (context ^ (context >> np.uint64(29))) * _MULTIPLIER + codes[places].astype(np.uint64) + np.uint64(1)
        )
    return np.concatenate(grams), np.concatenate(contexts)


def _looked_up(keys: _Hashes, values: _Counts, wanted: _Hashes) -> _Counts:
    """Return the value of each wanted key; 0 if it is not among the sorted keys."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: _Counts = np.where(keys[place] == wanted, values[place], 0).astype(np.int64)
    return found
