"""Conversations as token ids, and which of them are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = Sequence[int] | NDArray[np.int32]
Encoded = tuple[Ids, Sequence[bool] | NDArray[np.bool_]]


def compact(ids: Sequence[int], trained: Sequence[bool]) -> Encoded:
    """The same as arrays: five bytes a token. A million conversations as lists would take 10 GB."""
    return np.array(ids, dtype=np.int32), np.array(trained, dtype=np.bool_)


def trained_tokens(examples: Iterable[Encoded]) -> int:
    """How many tokens of all examples are trained."""
    return sum(int(np.count_nonzero(trained)) for _, trained in examples)
