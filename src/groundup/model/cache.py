"""KV caches: `KVCache` for a batch of sequences with equal lengths, `BatchCache` for several sequences.

Letters in tensor names: B is the batch size, T the number of new tokens, S the number of cached tokens, K the number of
KV heads, and H the head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from groundup.core.errors import ConfigError

INITIAL_CAPACITY = 256  # number of tokens per sequence; the capacity is doubled when the cache is full


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Dimensions, dtype and device of a KV cache."""

    n_layers: int
    batch_size: int
    max_length: int
    n_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Size in bytes of the cached keys and values of one token."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * self.dtype.itemsize


class KVCache:
    """KV cache for a batch of sequences that all have the same length. The memory grows with the sequences.

    A request that does not set max_tokens may use the whole context length, but usually ends earlier. For SmolLM2-135M
    in fp32, a cache for the whole context length takes 377 MB. Allocating such a cache would delay the first token.

    In a forward pass, attention calls `extend` once per layer, and the model calls `advance` once. Data after `length`
    is ignored, so `truncate` only changes `length`.

    Args:
        shape: Dimensions of the cache.

    Attributes:
        length: Number of cached tokens per sequence.
        max_length: Maximum of `length`.
    """

    def __init__(self, shape: CacheShape) -> None:
        self._shape = shape
        self._capacity = 0
        self._keys = [self._empty(0) for _ in range(shape.n_layers)]
        self._values = [self._empty(0) for _ in range(shape.n_layers)]
        self.length = 0
        self.max_length = shape.max_length

    @property
    def nbytes(self) -> int:
        """Size of the allocated memory in bytes."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def reserve(self, length: int) -> None:
        """Allocate memory for at least `length` tokens per sequence.

        The capacity is doubled, so that each token is copied at most once on average.

        Args:
            length: Number of tokens per sequence.

        Raises:
            ConfigError: `length` is greater than `max_length`.
        """
        if length > self.max_length:
            raise ConfigError(
                f"{length} tokens",
                rule=f"the maximum length of this KV cache is {self.max_length}",
                fix="Create the cache with a larger max_length.",
            )
        if length <= self._capacity:
            return
        capacity = min(self.max_length, max(length, 2 * self._capacity, INITIAL_CAPACITY))
        for tensors in (self._keys, self._values):
            for layer, old in enumerate(tensors):  # copy one layer at a time to limit the peak memory
                tensors[layer] = new = self._empty(capacity)
                new[:, : self._capacity] = old
        self._capacity = capacity

    def extend(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values of a layer.

        Args:
            layer: Index of the layer.
            k_BTKH: New keys.
            v_BTKH: New values.

        Returns:
            All cached keys and values of the layer, both of shape (B, S, K, H).
        """
        end = self.length + k_BTKH.shape[1]
        self.reserve(end)
        keys, values = self._keys[layer], self._values[layer]
        keys[:, self.length : end], values[:, self.length : end] = k_BTKH, v_BTKH
        return keys[:, :end], values[:, :end]

    def advance(self, n_tokens: int) -> None:
        """Increase the length by `n_tokens`, after all layers have stored the keys and values of these tokens."""
        self.length += n_tokens

    def truncate(self, length: int) -> None:
        """Remove all tokens except the first `length` tokens."""
        assert 0 <= length <= self.length
        self.length = length

    def repeated(self, batch_size: int, max_length: int) -> KVCache:
        """Return a cache of `batch_size` copies of the only sequence of this cache.

        Args:
            batch_size: Number of copies.
            max_length: Maximum number of tokens per copy.
        """
        assert self._shape.batch_size == 1
        made = KVCache(replace(self._shape, batch_size=batch_size, max_length=max_length))
        made.reserve(max_length)
        made.length = self.length
        for mine, theirs in ((self._keys, made._keys), (self._values, made._values)):
            for old, new in zip(mine, theirs, strict=True):
                new[:, : self.length] = old[:, : self.length]
        return made

    def _empty(self, capacity: int) -> Tensor:
        shape = self._shape
        size = (shape.batch_size, capacity, shape.n_kv_heads, shape.head_dim)
        return torch.empty(size, dtype=shape.dtype, device=shape.device)


class BatchCache:
    """The KV caches of several sequences, for a forward pass that computes one new token of each.

    Args:
        rows: The caches, each for one sequence. If the batch is larger, its other rows are padding.
    """

    def __init__(self, rows: Sequence[KVCache]) -> None:
        self.rows = rows

    @property
    def length(self) -> int:
        """Length of the longest sequence."""
        return max(row.length for row in self.rows)

    def advance(self, n_tokens: int) -> None:
        """Increase the length of each sequence by `n_tokens`; see `KVCache.advance`."""
        for row in self.rows:
            row.advance(n_tokens)


Cache = KVCache | BatchCache
