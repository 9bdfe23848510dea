"""Common interface of tokenized documents on disk and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TokenDocuments(Protocol):
    """Documents as token ids without BOS, stored on disk (`TokenShards`) or in memory (`TokenLists`)."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each document."""
        ...

    @property
    def byte_lengths(self) -> NDArray[np.int64]:
        """Number of UTF-8 bytes of each document."""
        ...

    def document(self, index: int) -> NDArray[np.integer]:
        """Return the token ids of a document."""
        ...


@dataclass(frozen=True, slots=True)
class TokenLists:
    """Tokenized documents in memory, such as texts to score.

    Attributes:
        ids: Token ids of each document, without BOS.
        byte_lengths: Number of UTF-8 bytes of each document.
    """

    ids: Sequence[Sequence[int]]
    byte_lengths: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each document."""
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)

    def document(self, index: int) -> NDArray[np.integer]:
        """Return the token ids of a document."""
        return np.asarray(self.ids[index], dtype=np.int64)
