"""The key-value cache behind attention: of sequences of one length, and of a batch of any lengths. Paging can come
later behind the same three calls.

Shape letters: B batch, T new tokens, S tokens seen so far, K kv heads, H head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.core.errors import ConfigError

FIRST_TOKENS = 256  # allocated at first; doubled when they are full


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What a cache stores for each layer, and for how many sequences of how many tokens at most."""

    n_layers: int
    batch_size: int
    max_length: int
    n_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token of one sequence."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * self.dtype.itemsize


class _Memory:
    """Keys and values of all layers, allocated for the tokens that came and not for all that may come.

    A request without a limit may write to the end of the context, and mostly stops long before: all of that context
    would be 377 MB for SmolLM2-135M in fp32, allocated and zeroed before the first token.
    """

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self.capacity = 0
        self.keys = [self._empty(0) for _ in range(shape.n_layers)]
        self.values = [self._empty(0) for _ in range(shape.n_layers)]

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens of each sequence. Doubling keeps the copies below one per token."""
        if length <= self.capacity:
            return
        capacity = min(self.shape.max_length, max(length, 2 * self.capacity, FIRST_TOKENS))
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):  # layer by layer, so that only one is there twice at a time
                tensors[layer] = new = self._empty(capacity)
                new[:, : self.capacity] = old
                # A shorter sequence of a batch multiplies the rest by a probability of 0: it must be finite.
                new[:, self.capacity :] = 0
        self.capacity = capacity

    def _empty(self, capacity: int) -> Tensor:
        shape = self.shape
        size = (shape.batch_size, capacity, shape.n_kv_heads, shape.head_dim)
        return torch.empty(size, dtype=shape.dtype, device=shape.device)


class KVCache:
    """Keys and values of the tokens that a batch of equally long sequences has seen. Its memory grows with them.

    Attention calls `extend` once a layer; the model calls `advance` once a forward pass. What lies beyond `length` is
    scratch, so `truncate` is free.
    """

    def __init__(self, shape: CacheShape, memory: _Memory | None = None, place: int | None = None) -> None:
        self._memory = memory or _Memory(shape)
        self._rows = slice(0, shape.batch_size) if place is None else slice(place, place + 1)
        self.length = 0
        self.max_length = shape.max_length

    @property
    def nbytes(self) -> int:
        """Bytes that the keys and values take now."""
        return sum(tensor.nbytes for tensor in (*self._memory.keys, *self._memory.values))

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens now.

        Raises:
            ConfigError: more than `max_length`.
        """
        if length > self.max_length:
            raise ConfigError(
                f"{length} tokens",
                rule=f"this cache holds {self.max_length}",
                fix="Make it with a larger max_length.",
            )
        self._memory.reserve(length)

    def extend(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values of one layer; return all of that layer, (B, S, K, H) each."""
        end = self.length + k_BTKH.shape[1]
        self.reserve(end)
        keys, values = self._memory.keys[layer][self._rows], self._memory.values[layer][self._rows]
        keys[:, self.length : end], values[:, self.length : end] = k_BTKH, v_BTKH
        return keys[:, :end], values[:, :end]

    def advance(self, n_tokens: int) -> None:
        """All layers have stored `n_tokens` new tokens."""
        self.length += n_tokens

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        assert 0 <= length <= self.length
        self.length = length


class BatchCache:
    """Sequences of any lengths, side by side in one piece of memory, that take one token each at a time.

    `open` gives a sequence a `KVCache` of its own, which reads its prompt; after that, a forward pass with the batch
    itself takes one token of each of `rows`, at the positions `positions`. What a row has beyond its own length is
    scratch: no position of its own sees it.

    Attributes:
        rows: the open caches, in the order of the batch.
        places: how many can be open.
    """

    def __init__(self, shape: CacheShape) -> None:
        self.rows: list[KVCache] = []
        self.places = shape.batch_size
        self._memory = _Memory(shape)

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(row.length for row in self.rows)

    @property
    def positions(self) -> Tensor:
        """Where the next token of each sequence stands, (B, 1)."""
        return torch.tensor([[row.length] for row in self.rows], device=self._memory.shape.device)

    def open(self) -> KVCache:
        """A place for one sequence more."""
        assert len(self.rows) < self.places
        self.rows.append(KVCache(self._memory.shape, self._memory, len(self.rows)))
        return self.rows[-1]

    def close(self, place: int) -> None:
        """Let a sequence go; the last one takes its place in the batch and in `rows`."""
        last = self.rows.pop()
        if place == len(self.rows):
            return
        for tensor in (*self._memory.keys, *self._memory.values):
            tensor[place, : last.length] = tensor[len(self.rows), : last.length]
        last._rows = slice(place, place + 1)
        self.rows[place] = last

    def extend(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """As `KVCache.extend`, with one new token a sequence (T = 1)."""
        count, end = len(self.rows), self.length + 1
        self._memory.reserve(end)
        places_B = torch.arange(count, device=k_BTKH.device)
        lengths_B = self.positions[:, 0]
        keys, values = self._memory.keys[layer], self._memory.values[layer]
        keys[places_B, lengths_B], values[places_B, lengths_B] = k_BTKH[:, 0], v_BTKH[:, 0]
        return keys[:count, :end], values[:count, :end]

    def advance(self, n_tokens: int) -> None:
        """All layers have stored a new token of each sequence."""
        for row in self.rows:
            row.advance(n_tokens)


Cache = KVCache | BatchCache
