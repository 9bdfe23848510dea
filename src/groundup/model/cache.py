"""The key-value cache behind attention: of sequences of one length, and of a batch of any lengths. Paging can come
later behind the same three calls.

Shape letters: B batch, T new tokens, S tokens seen so far, K kv heads, H head_dim.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from groundup.errors import ConfigError


class KVCache:
    """Keys and values of the tokens that a batch of equally long sequences has seen.

    Attention calls `extend` once a layer; the model calls `advance` once a forward pass. What lies beyond `length` is
    scratch, so `truncate` is free.
    """

    def __init__(
        self,
        n_layers: int,
        batch_size: int,
        max_length: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (n_layers, batch_size, max_length, n_kv_heads, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0
        self.max_length = max_length

    @property
    def nbytes(self) -> int:
        """The memory of keys and values."""
        return self._keys.nbytes + self._values.nbytes

    def view(self, place: int) -> KVCache:
        """An empty cache of one sequence in the memory of the one at `place`."""
        row = copy(self)
        row._keys, row._values = self._keys[:, place : place + 1], self._values[:, place : place + 1]
        row.length = 0
        return row

    def extend(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values of one layer; return all of that layer, (B, S, K, H) each."""
        end = self.length + k_BTKH.shape[1]
        if end > self.max_length:
            raise ConfigError(
                f"{end} tokens",
                rule=f"this cache holds {self.max_length}",
                fix="Make it with a larger max_length.",
            )
        self._keys[layer, :, self.length : end] = k_BTKH
        self._values[layer, :, self.length : end] = v_BTKH
        return self._keys[layer, :, :end], self._values[layer, :, :end]

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

    def __init__(self, whole: KVCache, places: int) -> None:
        self.rows: list[KVCache] = []
        self.places = places
        self._whole = whole

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(row.length for row in self.rows)

    @property
    def positions(self) -> Tensor:
        """Where the next token of each sequence stands, (B, 1)."""
        return torch.tensor([[row.length] for row in self.rows], device=self._whole._keys.device)

    def open(self) -> KVCache:
        """A place for one sequence more."""
        assert len(self.rows) < self.places
        self.rows.append(self._whole.view(len(self.rows)))
        return self.rows[-1]

    def close(self, place: int) -> None:
        """Let a sequence go; the last one takes its place in the batch and in `rows`."""
        last = self.rows.pop()
        if place == len(self.rows):
            return
        row = self.rows[place]
        for mine, theirs in ((row._keys, last._keys), (row._values, last._values)):
            mine[:, :, : last.length] = theirs[:, :, : last.length]
        last._keys, last._values = row._keys, row._values
        self.rows[place] = last

    def extend(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """As `KVCache.extend`, with one new token a sequence (T = 1)."""
        count, end = len(self.rows), self.length + 1
        places_B = torch.arange(count, device=k_BTKH.device)
        lengths_B = self.positions[:, 0]
        keys, values = self._whole._keys[layer], self._whole._values[layer]
        keys[places_B, lengths_B], values[places_B, lengths_B] = k_BTKH[:, 0], v_BTKH[:, 0]
        return keys[:count, :end], values[:count, :end]

    def advance(self, n_tokens: int) -> None:
        """All layers have stored a new token of each sequence."""
        for row in self.rows:
            row.advance(n_tokens)


Cache = KVCache | BatchCache
