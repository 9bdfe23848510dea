"""Novelty score: out-of-distribution detection for classifier inputs.

A classifier assigns a label to any text, including gibberish, and its probabilities do not reveal this: a fine-tuned
SmolLM2 labeled random letters with probability 0.999. A character n-gram model of the training texts does: gibberish
and other languages need more bits per character than the training texts (Cavnar and Trenkle 1994, "N-Gram-Based Text
Categorization"). Smoothing is Witten-Bell (1991, "The zero-frequency problem").

The threshold is a quantile of the leave-one-out scores of the training texts. On average at most 5 % of new texts from
the same source exceed it (conformal prediction, Vovk et al. 2005).

Shape letters: P positions of characters in a text, G n-grams, K contexts, N orders of n-grams.
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
FALSE_ALARMS = 0.05  # target false-alarm rate: share of in-distribution texts that are flagged
_QUANTILE = 0.96  # 0.95 flagged 5.7 % of held-out texts (4 tables, 20 splits, 120 rows per split)
UNLIKE = "above 1, a text is unlike the training texts, and its label may be meaningless."
NO_NOVELTY = "Novelty is unknown: this classifier has no novelty.safetensors. Train it again to get one."
_FORMAT_VERSION = 1
_ARRAYS = ("grams", "counts", "contexts", "totals", "kinds")
_ORDERS = 5  # n-grams of 1 to 5 characters
_ALPHABET = 256.0  # an unseen character has probability 1/256 before smoothing
_MAX_COUNTED = 300_000  # characters of the training texts; more change the scores very little
_MAX_READ = 4_000  # characters per text
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # an odd number: multiplication modulo 2^64 is then invertible

_Hashes = npt.NDArray[np.uint64]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NoveltyScore:
    """The novelty score of one text.

    Attributes:
        novelty: Bits per character divided by the threshold. Above 1, the text is unlike the training texts.
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
        grams: Sorted hashes of the n-grams of all orders, (G,).
        counts: Number of occurrences of each n-gram, (G,).
        contexts: Sorted hashes of the contexts, (K,). A context is an n-gram without its last character.
        totals: Number of n-grams with each context, (K,).
        kinds: Number of distinct n-grams with each context, (K,).
        threshold: Bits per character.
        false_alarms: Share of the held-out texts that are flagged; None: not measured.
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
        """Count the n-grams of the training texts, or of a sample of them, and choose the threshold.

        Args:
            texts: The training texts.
            seed: Seed of the sample.
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
        """Return the novelty score of a text."""
        return NoveltyScore(self._bits(*_hashes(text)) / self.threshold)

    def with_held_out(self, texts: Sequence[str]) -> Novelty:
        """Return a copy with the false-alarm rate on held-out texts."""
        flagged = sum(self.score(text).unlike for text in texts)
        return replace(self, false_alarms=flagged / len(texts), held_out=len(texts))

    @property
    def sentence(self) -> str:
        """The false-alarm rate as a sentence."""
        target = f"target: at most {FALSE_ALARMS:.0%}"
        if self.false_alarms is None:
            return f"Novelty: no held-out texts to measure false alarms on ({target})."
        return f"Novelty: flags {self.false_alarms:.1%} of {self.held_out:,} held-out texts as unlike ({target})."

    def to_json(self) -> dict[str, Any]:
        """Return the entries for `artifact.json`."""
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
        """Read `novelty.safetensors` from a classifier's directory; return None if the file is missing.

        Raises:
            FormatError: The file is damaged, or has a later format version.
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
            found._check_arrays()
        except (SafetensorError, KeyError, ValueError) as error:
            raise FormatError(
                f"{path}: {str(error)[:200]}",
                rule="the file is damaged or has an unknown format",
                fix="Copy the classifier again, or delete this file; novelty is then not reported.",
            ) from None
        return found

    def _check_arrays(self) -> None:
        """Raise ValueError if the arrays do not match."""
        sized = len(self.grams) == len(self.counts), len(self.contexts) == len(self.totals) == len(self.kinds)
        if not all(sized) or not len(self.grams) or not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError("array lengths differ, or the threshold is not positive")

    def _bits(self, grams: _Hashes, contexts: _Hashes, *, leave_out: bool = False) -> float:
        """Return the bits per character of a text.

        Args:
            grams: Hashes of the text's n-grams, (N * P,).
            contexts: Hashes of their contexts, (N * P,).
            leave_out: The text is a training text. Subtract its own counts (leave-one-out).
        """
        counts = _lookup(self.grams, self.counts, grams)
        totals = _lookup(self.contexts, self.totals, contexts)
        kinds = _lookup(self.contexts, self.kinds, contexts)
        if leave_out:
            _, first, gram_of, own = np.unique(grams, return_index=True, return_inverse=True, return_counts=True)
            unique = counts[first] == own  # n-grams that only this text has
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
    """Return hashes of the n-grams that end at each character, ordered by n, and of their contexts: both (N * P,).

    The text is lowercased, and white space is collapsed. It is padded with spaces at both ends.
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
    """Return the value of each query in the sorted keys; 0 if it is missing."""
    index = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    found: _Counts = np.where(keys[index] == queries, values[index], 0).astype(np.int64)
    return found
