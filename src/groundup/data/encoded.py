"""Conversations as token ids, with a mask of the trained tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = Sequence[int] | NDArray[np.int32]
Encoded = tuple[Ids, Sequence[bool] | NDArray[np.bool_]]


def to_arrays(ids: Sequence[int], trained: Sequence[bool]) -> Encoded:
    """Convert to arrays of five bytes per token; as lists, a million conversations would take 10 GB."""
    return np.array(ids, dtype=np.int32), np.array(trained, dtype=np.bool_)


def trained_tokens(examples: Iterable[Encoded]) -> int:
    """Return the total number of trained tokens."""
    return sum(int(np.count_nonzero(trained)) for _, trained in examples)
