"""Conversations as token ids with a mask of the trained tokens, which are the tokens that contribute to the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = Sequence[int] | NDArray[np.int32]
Encoded = tuple[Ids, Sequence[bool] | NDArray[np.bool_]]


def to_arrays(ids: Sequence[int], trained: Sequence[bool]) -> Encoded:
    """Convert token ids and mask to arrays, which need 5 bytes per token.

    As Python lists, a million conversations would need 10 GB.
    """
    return np.array(ids, dtype=np.int32), np.array(trained, dtype=np.bool_)


def trained_tokens(examples: Iterable[Encoded]) -> int:
    """Return the total number of trained tokens, which are the tokens that contribute to the loss."""
    return sum(int(np.count_nonzero(trained)) for _, trained in examples)
