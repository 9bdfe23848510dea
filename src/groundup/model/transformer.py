"""One transformer for every family. Its parameters carry Hugging Face's Llama names.

Shape letters: B batch, T sequence, S keys, D dim, V vocab.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from groundup.errors import ConfigError
from groundup.model.attention import Attention, attention_mask
from groundup.model.cache import KVCache
from groundup.model.config import ModelConfig
from groundup.model.layers import Embedding, Linear, Rotary, make_mlp, make_norm
from groundup.model.loss import Residual, nll_and_residual, row_nll, summed_nll


class Block(nn.Module):
    """Two residual branches, each behind its norm."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = make_mlp(config)

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        mask_B1TS: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rope, mask_B1TS, cache)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Decoder(nn.Module):
    """Tokens in, normalized hidden states out: what every head stands on."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.dim)
        self.embed_positions = None if config.rotary else Embedding(config.context_length, config.dim)
        self.rotary = Rotary(config) if config.rotary else None
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = make_norm(config)
        self.compute_dtype: torch.dtype | None = None  # None: that of the weights

    def forward(
        self,
        input_ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) of `input_ids_BT`; see `Transformer.forward` for the arguments."""
        start = cache.length if cache is not None else 0
        end = start + input_ids_BT.shape[1]
        if end > self.config.context_length:
            raise ConfigError(
                f"{end} tokens",
                rule=f"this model was built for a context of {self.config.context_length}",
                fix="Shorten the text, or train with a larger context_length.",
            )
        if positions_BT is None:
            positions_BT = torch.arange(start, end, device=input_ids_BT.device).expand_as(input_ids_BT)
        x_BTD = self.embed_tokens(input_ids_BT)
        if self.embed_positions is not None:
            x_BTD = x_BTD + self.embed_positions(positions_BT)
        x_BTD = x_BTD.to(self.compute_dtype or x_BTD.dtype)
        rope = None
        if self.rotary is not None:
            cos, sin = self.rotary(positions_BT)
            rope = (cos.to(x_BTD.dtype), sin.to(x_BTD.dtype))
        mask_B1TS = attention_mask(positions_BT, document_ids_BT, cache)
        for layer in self.layers:
            x_BTD = layer(x_BTD, rope, mask_B1TS, cache)
        if cache is not None:
            cache.advance(input_ids_BT.shape[1])
        return self.norm(x_BTD)


class Transformer(nn.Module):
    """A causal language model: the decoder and the matrix that scores the next token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.residual: Residual = nll_and_residual

    def forward(
        self,
        input_ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KVCache | None = None,
        labels_BT: Tensor | None = None,
        reduction: Literal["sum", "none"] = "sum",
    ) -> Tensor:
        """Score the next token at each position.

        Args:
            positions_BT: where each token stands in its document; by default 0, 1, 2, ... (after the cache's tokens).
            document_ids_BT: which document of its row a token belongs to; a token attends within its document only.
                None: each row is one document.
            cache: keys and values of earlier tokens, extended in place.
            labels_BT: the token that should come next, IGNORE_INDEX where none is scored.
            reduction: with labels, "sum" gives the summed negative log-likelihood with its gradient, "none" gives
                that of each token without gradient.

        Returns:
            Logits (B, T, V) in fp32 without labels; else () or (B, T), fp32.
        """
        h_BTD = self.model(input_ids_BT, positions_BT, document_ids_BT, cache)
        if labels_BT is None:
            return self.lm_head(h_BTD).float()
        h_RD, labels_R = h_BTD.flatten(0, 1), labels_BT.flatten()
        if reduction == "none":
            return row_nll(h_RD, self.lm_head.weight, labels_R).view_as(labels_BT)
        return summed_nll(h_RD, self.lm_head.weight, labels_R, self.residual)

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """An empty key-value cache for `batch_size` sequences of at most `max_length` tokens."""
        weight = self.model.embed_tokens.weight
        return KVCache(
            self.config.n_layers,
            batch_size,
            max_length,
            self.config.n_kv_heads,
            self.config.head_dim,
            dtype=self.model.compute_dtype or weight.dtype,
            device=weight.device,
        )
