"""KV caches for a batch of sequences with equal lengths (`KVCache`) and with different lengths (`BatchCache`).

Letters in tensor names: B is the batch size, T the number of new tokens, S the number of cached tokens, K the number of
KV heads, and H the head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass

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


class _Storage:
    """Tensors with the keys and values of all layers. The tensors grow when sequences become longer.

    A request that does not set max_tokens may use the whole context length, but usually ends earlier. For SmolLM2-135M
    in fp32, a cache for the whole context length takes 377 MB. Allocating such a cache would delay the first token.
    """

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self.capacity = 0
        self.keys = [self._empty(0) for _ in range(shape.n_layers)]
        self.values = [self._empty(0) for _ in range(shape.n_layers)]

    def reserve(self, length: int) -> None:
        """Allocate memory for at least `length` tokens per sequence.

        The capacity is doubled, so that each token is copied at most once on average.
        """
        if length <= self.capacity:
            return
        capacity = min(self.shape.max_length, max(length, 2 * self.capacity, INITIAL_CAPACITY))
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):  # copy one layer at a time to limit the peak memory
                tensors[layer] = new = self._empty(capacity)
                new[:, : self.capacity] = old
                # In a batch, unused values of shorter sequences are multiplied by attention weights of 0. These values
                # must be finite, because 0 x NaN is NaN.
                new[:, self.capacity :] = 0
        self.capacity = capacity

    def _empty(self, capacity: int) -> Tensor:
        shape = self.shape
        size = (shape.batch_size, capacity, shape.n_kv_heads, shape.head_dim)
        return torch.empty(size, dtype=shape.dtype, device=shape.device)


class KVCache:
    """KV cache for a batch of sequences that all have the same length. The memory grows with the sequences.

    In a forward pass, attention calls `extend` once per layer, and the model calls `advance` once. Data after `length`
    is ignored, so `truncate` only changes `length`.

    Args:
        shape: Dimensions of the cache.
        storage: Storage of a `BatchCache` that this cache shares. Default: a new storage.
        slot: Row of `storage` that this cache uses. Default: all rows.

    Attributes:
        length: Number of cached tokens per sequence.
        max_length: Maximum of `length`.
    """

    def __init__(self, shape: CacheShape, storage: _Storage | None = None, slot: int | None = None) -> None:
        self._storage = storage or _Storage(shape)
        self._rows = slice(0, shape.batch_size) if slot is None else slice(slot, slot + 1)
        self.length = 0
        self.max_length = shape.max_length

    @property
    def nbytes(self) -> int:
        """Size of the allocated memory in bytes."""
        return sum(tensor.nbytes for tensor in (*self._storage.keys, *self._storage.values))

    def reserve(self, length: int) -> None:
        """Allocate memory for at least `length` tokens per sequence.

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
        self._storage.reserve(length)

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
        keys, values = self._storage.keys[layer][self._rows], self._storage.values[layer][self._rows]
        keys[:, self.length : end], values[:, self.length : end] = k_BTKH, v_BTKH
        return keys[:, :end], values[:, :end]

    def advance(self, n_tokens: int) -> None:
        """Increase the length by `n_tokens`, after all layers have stored the keys and values of these tokens."""
        self.length += n_tokens

    def truncate(self, length: int) -> None:
        """Remove all tokens except the first `length` tokens."""
        assert 0 <= length <= self.length
        self.length = length


class BatchCache:
    """KV cache for batched decoding of sequences that have different lengths.

    `open` adds a sequence to the batch and returns a `KVCache` for its prefill. After the prefill, a forward pass with
    the `BatchCache` decodes one token of each sequence at `positions`. The attention mask hides data after the end of
    each sequence.

    Args:
        shape: Dimensions of the cache.

    Attributes:
        rows: The `KVCache` of each sequence, in the order of the batch.
        num_slots: Maximum number of sequences.
    """

    def __init__(self, shape: CacheShape) -> None:
        self.rows: list[KVCache] = []
        self.num_slots = shape.batch_size
        self._storage = _Storage(shape)

    @property
    def length(self) -> int:
        """Length of the longest sequence."""
        return max(row.length for row in self.rows)

    @property
    def positions(self) -> Tensor:
        """Position of the next token of each sequence, of shape (B, 1)."""
        return torch.tensor([[row.length] for row in self.rows], device=self._storage.shape.device)

    def open(self) -> KVCache:
        """Add a sequence to the batch and return the `KVCache` of this sequence."""
        assert len(self.rows) < self.num_slots
        self.rows.append(KVCache(self._storage.shape, self._storage, len(self.rows)))
        return self.rows[-1]

    def close(self, slot: int) -> None:
        """Remove the sequence in a slot. The last sequence of the batch moves to the free slot."""
        last = self.rows.pop()
        if slot == len(self.rows):
            return
        for tensor in (*self._storage.keys, *self._storage.values):
            tensor[slot, : last.length] = tensor[len(self.rows), : last.length]
        last._rows = slice(slot, slot + 1)
        self.rows[slot] = last

    def extend(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of one new token per sequence (T = 1); see `KVCache.extend`."""
        count, end = len(self.rows), self.length + 1
        self._storage.reserve(end)
        slots_B = torch.arange(count, device=k_BTKH.device)
        lengths_B = self.positions[:, 0]
        keys, values = self._storage.keys[layer], self._storage.values[layer]
        keys[slots_B, lengths_B], values[slots_B, lengths_B] = k_BTKH[:, 0], v_BTKH[:, 0]
        return keys[:count, :end], values[:count, :end]

    def advance(self, n_tokens: int) -> None:
        """Increase the length of each sequence by `n_tokens`, after all layers have stored these tokens."""
        for row in self.rows:
            row.advance(n_tokens)


Cache = KVCache | BatchCache
