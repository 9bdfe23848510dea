"""The key-value cache behind attention. Paging and ragged batches can come later behind the same three calls.

Shape letters: B batch, T new tokens, S tokens seen so far, K kv heads, H head_dim.
"""

from __future__ import annotations

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
