"""Novelty score: detection of out-of-distribution texts in the inputs of a classifier.

A classifier assigns a label to any text, even to gibberish, and a high probability does not mean that the text is
in-distribution. For example, a fine-tuned SmolLM2 labeled random letters with probability 0.999. A character n-gram
model of the training texts detects such inputs, because gibberish and other languages need more bits per character than
the training texts (Cavnar and Trenkle 1994, "N-Gram-Based Text Categorization"). The n-gram model uses Witten-Bell
smoothing (1991, "The zero-frequency problem").

The threshold is a quantile of the leave-one-out scores of the training texts. On average, at most 5 % of new texts from
the same distribution exceed the threshold (conformal prediction, Vovk et al. 2005).

Shape letters: P is the number of character positions in a text, G the number of n-grams, K the number of contexts and N
the number of n-gram orders.
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
from groundup.hub.arrays import read_arrays

NOVELTY_FILE = "novelty.safetensors"
FALSE_ALARMS = 0.05  # target fraction of in-distribution texts that are flagged
_QUANTILE = 0.96  # at 0.95, 5.7 % of held-out texts were flagged, which exceeds the target
UNLIKE = "A score above 1 means that a text differs from the training texts, so its label may be meaningless."
NO_NOVELTY = "Novelty is unknown, because this classifier has no novelty.safetensors. Train it again to get scores."
_FORMAT_VERSION = 1
_ARRAYS = ("grams", "counts", "contexts", "totals", "kinds")
_ORDERS = 5  # the model counts n-grams of 1 to 5 characters
_ALPHABET = 256.0  # before smoothing, each character has probability 1/256
_MAX_COUNTED = 300_000  # maximum number of training characters; more characters barely change the scores
_MAX_READ = 4_000  # maximum number of characters that are used per text
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # multiplication by an odd number modulo 2^64 is invertible

_Hashes = npt.NDArray[np.uint64]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NoveltyScore:
    """The novelty score of one text.

    Attributes:
        novelty: Bits per character divided by the threshold. A score above 1 means that the text is less similar to the
            training texts than almost all held-out texts are.
    """

    novelty: float

    @property
    def unlike(self) -> bool:
        """Whether the text is flagged as different from the training texts."""
        return self.novelty > 1


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """A character n-gram model of the training texts, with a threshold for novelty.

    Attributes:
        grams: Sorted hashes of the n-grams of all orders, with shape (G,).
        counts: Number of occurrences of each n-gram, with shape (G,).
        contexts: Sorted hashes of the contexts, with shape (K,). The context of an n-gram consists of all its
            characters except the last.
        totals: Number of occurrences of n-grams with each context, with shape (K,).
        kinds: Number of distinct n-grams with each context, with shape (K,).
        threshold: Threshold in bits per character. It corresponds to the novelty score 1.
        false_alarms: Fraction of the held-out texts that are flagged, or None if it was not measured.
        held_out: Number of held-out texts.
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
        """Count the n-grams of the training texts, or of a random sample of these texts, and compute the threshold.

        Args:
            texts: Texts of the training set.
            seed: Random seed of the sample.
        """
        chosen: list[tuple[_Hashes, _Hashes]] = []
        counted = 0
        for index in random.Random(seed).sample(range(len(texts)), len(texts)):
            if counted >= _MAX_COUNTED:
                break
            chosen.append(_hashes(texts[index]))
            counted += len(chosen[-1][0]) // _ORDERS
        grams, first, counts = np.unique(
            np.concatenate([each for each, _ in chosen]), return_index=True, return_counts=True
        )
        context_of_gram = np.concatenate([each for _, each in chosen])[first]
        contexts, inverse, kinds = np.unique(context_of_gram, return_inverse=True, return_counts=True)
        totals = np.bincount(inverse, counts).astype(np.int64)
        fitted = cls(grams, counts, contexts, totals, kinds, 1.0)
        bits = sorted(fitted._bits(*each, leave_out=True) for each in chosen)
        rank = math.ceil((len(bits) + 1) * _QUANTILE) - 1
        return replace(fitted, threshold=max(bits[min(rank, len(bits) - 1)], 1e-3))

    def score(self, text: str) -> NoveltyScore:
        """Return the novelty score of a text, compared with the training texts."""
        return NoveltyScore(self._bits(*_hashes(text)) / self.threshold)

    def with_held_out(self, texts: Sequence[str]) -> Novelty:
        """Return a copy of the model that records the false-alarm rate on held-out texts."""
        flagged = sum(self.score(text).unlike for text in texts)
        return replace(self, false_alarms=flagged / len(texts), held_out=len(texts))

    @property
    def sentence(self) -> str:
        """A sentence that states the false-alarm rate."""
        target = f"target: at most {FALSE_ALARMS:.0%}"
        if self.false_alarms is None:
            return f"Novelty: there are no held-out texts to measure false alarms on ({target})."
        return f"Novelty: {self.false_alarms:.1%} of {self.held_out:,} held-out texts are flagged ({target})."

    def to_json(self) -> dict[str, Any]:
        """Return the values that `artifact.json` records."""
        return {
            "bits_per_character": self.threshold,
            "intended_false_alarms": FALSE_ALARMS,
            "false_alarms": self.false_alarms,
            "held_out": self.held_out,
        }

    def save(self, directory: Path) -> Path:
        """Write the model to `novelty.safetensors` in a directory, and return the path of this file."""
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
        """Read `novelty.safetensors` from the directory of a classifier. Return None if the file does not exist.

        Raises:
            FormatError: The file is damaged, or has an unknown format version.
        """
        from safetensors import SafetensorError

        path = directory / NOVELTY_FILE
        if not path.is_file():
            return None
        try:
            facts, arrays = read_arrays(path, _FORMAT_VERSION, _ARRAYS)
            rate = facts.get("false_alarms")
            measured = None if rate is None else float(rate)
            found = cls(
                threshold=float(facts["threshold"]), false_alarms=measured, held_out=int(facts["held_out"]), **arrays
            )
            found._check_arrays()
        except (SafetensorError, KeyError, ValueError) as error:
            raise FormatError(
                f"{path}: {str(error)[:200]}",
                rule="the file is damaged or has an unknown format",
                fix="Copy the classifier again, or delete this file; novelty is then not reported.",
            ) from None
        return found

    def _check_arrays(self) -> None:
        """Raise ValueError if the lengths of the arrays do not match or the threshold is not positive."""
        sized = len(self.grams) == len(self.counts), len(self.contexts) == len(self.totals) == len(self.kinds)
        if not all(sized) or not len(self.grams) or not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError("array lengths differ, or the threshold is not positive")

    def _bits(self, grams: _Hashes, contexts: _Hashes, *, leave_out: bool = False) -> float:
        """Return the bits per character that the n-gram model needs for a text.

        Args:
            grams: Hashes of the n-grams in the text, with shape (N * P,).
            contexts: Hash of the context of each n-gram, with shape (N * P,).
            leave_out: Whether the text is a training text, whose own counts are then subtracted (leave-one-out).
        """
        counts = _lookup(self.grams, self.counts, grams)
        totals = _lookup(self.contexts, self.totals, contexts)
        kinds = _lookup(self.contexts, self.kinds, contexts)
        if leave_out:
            _, first, gram_of, own = np.unique(grams, return_index=True, return_inverse=True, return_counts=True)
            unique = counts[first] == own  # marks n-grams that occur only in this text
            _, context_of, within = np.unique(contexts, return_inverse=True, return_counts=True)
            counts = counts - own[gram_of]
            totals = totals - within[context_of]
            kinds = kinds - np.bincount(context_of[first], unique, len(within)).astype(np.int64)[context_of]
        probability_P = np.full(len(grams) // _ORDERS, 1 / _ALPHABET)
        for count, total, kind in zip(*(each.reshape(_ORDERS, -1) for each in (counts, totals, kinds)), strict=True):
            known = total > 0
            interpolated = (count + kind * probability_P) / np.maximum(total + kind, 1)
            probability_P = np.where(known, interpolated, probability_P)
        return float(-np.log2(probability_P).mean())


def _hashes(text: str) -> tuple[_Hashes, _Hashes]:
    """Return hashes of the n-grams that end at each character, and hashes of their contexts.

    Both arrays have the shape (N * P,) and are sorted by the order of the n-grams.

    The text is converted to lower case, runs of whitespace are replaced by one space, and a space is added at both
    ends.
    """
    words = f" {' '.join(text[:_MAX_READ].lower().split())} "
    codes = np.frombuffer((" " * (_ORDERS - 1) + words).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    positions = np.arange(_ORDERS, len(codes))
    grams, contexts = [], []
    for order in range(_ORDERS):
        context = np.full(len(positions), order + 1, dtype=np.uint64)
        for back in range(order, 0, -1):
            context = context * _MULTIPLIER + codes[positions - back].astype(np.uint64) + np.uint64(1)
        contexts.append(context)
        grams.append(
            (context ^ (context >> np.uint64(29))) * _MULTIPLIER + codes[positions].astype(np.uint64) + np.uint64(1)
        )
    return np.concatenate(grams), np.concatenate(contexts)


def _lookup(keys: _Hashes, values: _Counts, queries: _Hashes) -> _Counts:
    """Return the value of each query from sorted keys, or 0 if the keys do not contain the query."""
    index = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    found: _Counts = np.where(keys[index] == queries, values[index], 0).astype(np.int64)
    return found
