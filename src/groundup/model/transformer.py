"""The decoder-only transformer for all model families, with the parameter names of Hugging Face's Llama.

Letters in tensor names: B is the batch size, T the sequence length, S the number of keys, D the hidden size, and V the
vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.errors import ConfigError
from groundup.model.attention import Attention, Rotary, cached_attention_mask
from groundup.model.cache import BatchCache, Cache, CacheShape, KVCache
from groundup.model.config import ModelConfig
from groundup.model.layers import Embedding, Linear, add_and_normalize, make_mlp, make_norm
from groundup.model.loss import SoftLabels, TeacherStates, softcapped, summed_nll, token_logprobs
from groundup.model.operations import Accelerated

Rope = tuple[Tensor, Tensor]
LayerHook = Callable[[int, Tensor, Rope | None], object]
"""Function that is called before each layer with the layer index, the input (B, T, D), and the RoPE (cos, sin)."""


class Block(nn.Module):
    """Pre-norm block: the inputs of attention and MLP are normalized.

    Attributes:
        dropout: Dropout probability for the outputs of attention and MLP during training.
    """

    dropout = 0.0

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.multiplier = config.residual_multiplier
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = make_mlp(config)

    def forward(
        self,
        x_BTD: Tensor,
        rope: Rope | None,
        attn_mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """Return the residual stream after the block, of shape (B, T, D)."""
        x_BTD, h_BTD = add_and_normalize(self.input_layernorm, x_BTD)
        attended_BTD = self.scaled(self.self_attn(h_BTD, rope, attn_mask, cache))
        x_BTD, h_BTD = add_and_normalize(self.post_attention_layernorm, x_BTD, attended_BTD)
        return x_BTD + self.scaled(self.mlp(h_BTD))

    def scaled(self, branch_BTD: Tensor) -> Tensor:
        """Apply dropout and the residual multiplier to the output of attention or of the MLP."""
        # Evaluations during training do not use dropout: they compute no gradients.
        if self.dropout and self.training and torch.is_grad_enabled():
            branch_BTD = F.dropout(branch_BTD, self.dropout)
        return branch_BTD if self.multiplier is None else branch_BTD * self.multiplier


class ParallelBlock(Block):
    """Block in which attention and MLP are computed in parallel from the same residual stream (GPT-J, GPT-NeoX)."""

    def forward(self, x_BTD: Tensor, rope: Rope | None, attn_mask: Tensor | None, cache: Cache | None) -> Tensor:
        """Return the residual stream after the block, of shape (B, T, D)."""
        x_BTD, h_BTD = add_and_normalize(self.input_layernorm, x_BTD)
        attended_BTD = self.self_attn(h_BTD, rope, attn_mask, cache)
        x_BTD, h_BTD = add_and_normalize(self.post_attention_layernorm, x_BTD)
        return x_BTD + self.scaled(self.mlp(h_BTD) + attended_BTD)


class SandwichBlock(Block):
    """Block in which the inputs and the outputs of attention and MLP are normalized (Gemma).

    In this block, `post_attention_layernorm` normalizes the output of attention.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.pre_feedforward_layernorm = make_norm(config)
        self.post_feedforward_layernorm = make_norm(config)

    def forward(
        self,
        x_BTD: Tensor,
        rope: Rope | None,
        attn_mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """Return the residual stream after the block, of shape (B, T, D)."""
        x_BTD, h_BTD = add_and_normalize(self.input_layernorm, x_BTD)
        attended_BTD = self.scaled(self.post_attention_layernorm(self.self_attn(h_BTD, rope, attn_mask, cache)))
        x_BTD, h_BTD = add_and_normalize(self.pre_feedforward_layernorm, x_BTD, attended_BTD)
        return x_BTD + self.scaled(self.post_feedforward_layernorm(self.mlp(h_BTD)))


class PostNormBlock(SandwichBlock):
    """Block in which the outputs of attention and MLP are normalized (OLMo 2, arXiv:2501.00656)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.input_layernorm = self.pre_feedforward_layernorm = nn.Identity()


_BLOCKS: dict[str, type[Block]] = {
    "pre": Block,
    "sandwich": SandwichBlock,
    "post": PostNormBlock,
    "parallel": ParallelBlock,
}


class Decoder(Accelerated):
    """The transformer without an output head. It computes normalized hidden states from token ids.

    Args:
        config: The model's config.

    Attributes:
        compute_dtype: Dtype of activations. If None, activations have the dtype of the weights.
        token_dropout: Probability that the embedding of an input token is set to 0 during training.
    """

    token_dropout = 0.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.dim)
        self.embed_positions = None if config.rotary else Embedding(config.context_length, config.dim)
        self.rotary = Rotary(config.rotary_dim, config.rope_theta, config.rope_scaling) if config.rotary else None
        local_theta = config.local_rope_theta
        self.local_rotary = Rotary(config.rotary_dim, local_theta) if local_theta else self.rotary
        block = _BLOCKS[config.block]
        self.layers = nn.ModuleList(block(config, layer) for layer in range(config.n_layers))
        self.norm = make_norm(config)
        self.embedding_scale = config.embedding_scale
        self.sliding = [config.slides(layer) for layer in range(config.n_layers)]
        self.rotated = [config.rotates(layer) for layer in range(config.n_layers)]
        self.compute_dtype: torch.dtype | None = None

    def forward(
        self,
        input_ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: Cache | None = None,
        layer_hook: LayerHook | None = None,
    ) -> Tensor:
        """Return the hidden states, of shape (B, T, D). `Transformer.forward` documents the arguments."""
        start = cache.length if cache is not None else 0
        end = start + input_ids_BT.shape[1]
        if end > self.config.context_length:
            raise ConfigError(
                f"{end} tokens",
                rule=f"the model's context_length is {self.config.context_length}",
                fix="Shorten the text, or train with a larger context_length.",
            )
        if positions_BT is None:
            positions_BT = torch.arange(start, end, device=input_ids_BT.device).expand_as(input_ids_BT)
        x_BTD = self.embed_tokens(input_ids_BT)
        if self.compute_dtype == torch.float32:  # before the scale is applied, which the weights' dtype may round
            x_BTD = x_BTD.float()
        if self.embedding_scale != 1:
            x_BTD = x_BTD * torch.tensor(self.embedding_scale, dtype=x_BTD.dtype)
        if self.embed_positions is not None:
            x_BTD = x_BTD + self.embed_positions(positions_BT)
        x_BTD = x_BTD.to(self.compute_dtype or x_BTD.dtype)
        if self.token_dropout and self.training and torch.is_grad_enabled():
            x_BTD = x_BTD * (torch.rand(x_BTD.shape[:2], device=x_BTD.device) >= self.token_dropout)[..., None]
        full = local = (
            _rope(self.rotary, positions_BT, x_BTD.dtype),
            self._attention_mask(positions_BT, document_ids_BT, cache, None),
        )
        if self.config.sliding_window is not None:
            local = (
                _rope(self.local_rotary, positions_BT, x_BTD.dtype),
                self._attention_mask(positions_BT, document_ids_BT, cache, self.config.sliding_window),
            )
        for index, layer in enumerate(self.layers):
            rope, attn_mask = local if self.sliding[index] else full
            rope = rope if self.rotated[index] else None
            if layer_hook is not None:
                layer_hook(index, x_BTD, rope)
            x_BTD = layer(x_BTD, rope, attn_mask, cache)
        if cache is not None:
            cache.advance(input_ids_BT.shape[1])
        return self.norm(x_BTD)

    def _attention_mask(
        self, positions_BT: Tensor, document_ids_BT: Tensor | None, cache: Cache | None, window: int | None
    ) -> Tensor | None:
        if isinstance(cache, BatchCache):
            return None  # each query attends to all keys of its own sequence
        if cache is not None and cache.length:
            return cached_attention_mask(positions_BT, cache.length + positions_BT.shape[1], window)
        return self.operations.attention_mask(positions_BT, document_ids_BT, window)


def _rope(rotary: Rotary | None, positions_BT: Tensor, dtype: torch.dtype) -> Rope | None:
    if rotary is None:
        return None
    cos, sin = rotary(positions_BT)
    return cos.to(dtype), sin.to(dtype)


class Transformer(Accelerated):
    """Causal language model, which consists of the decoder and the output head.

    Args:
        config: The model's config.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        input_ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: Cache | None = None,
        labels_BT: Tensor | None = None,
        reduction: Literal["sum", "none"] = "sum",
        z_loss: float = 0.0,
        soft_labels: SoftLabels | None = None,
    ) -> Tensor:
        """Compute the logits of the next tokens, or the loss if labels are given.

        Args:
            input_ids_BT: Token ids.
            positions_BT: Position of each token in its document. Default: 0, 1, 2, ..., beginning after the cached
                tokens.
            document_ids_BT: Index of the document that contains each token, for rows in which documents are packed, or
                `SHARED_PREFIX` for a prefix that is shared by the documents after it, up to the next shared prefix. A
                token attends only to tokens of the same document and of its prefix. None means that each row is one
                document.
            cache: KV cache of earlier tokens. The new keys and values are added in place.
            labels_BT: Id of the next token at each position, or IGNORE_INDEX for positions without a loss.
            reduction: Reduction of the loss. "sum" returns the summed negative log-likelihood. "none" returns the
                negative log-likelihood of each token, which is 0 for IGNORE_INDEX. Both are differentiable.
            z_loss: Coefficient of the z-loss for the reduction "sum"; see `groundup.model.loss.summed_nll`.
            soft_labels: Probabilities of teachers for the reduction "sum", which change the gradient of the loss.

        Returns:
            If labels are not given, the logits of shape (B, T, V) in fp32. If labels are given, the loss in fp32: a
            scalar for "sum", or a tensor of shape (B, T) for "none".
        """
        h_BTD = self.model(input_ids_BT, positions_BT, document_ids_BT, cache)
        if labels_BT is None:
            return self.logits(h_BTD)
        h_BTD, weight, softcap = self._scaled(h_BTD), self.lm_head.dense_weight(), self.config.logit_softcap
        if reduction == "none":
            return -token_logprobs(h_BTD, weight, labels_BT, self.operations, softcap=softcap)
        h_RD, labels_R = h_BTD.flatten(0, 1), labels_BT.flatten()
        return summed_nll(
            h_RD, weight, labels_R, self.operations, z_loss=z_loss, softcap=softcap, soft_labels=soft_labels
        )

    @torch.no_grad()
    def teacher_states(self, input_ids_BT: Tensor, positions_BT: Tensor, document_ids_BT: Tensor) -> TeacherStates:
        """Return the hidden states from which another model learns. The arguments are those of `forward`."""
        h_BTD = self._scaled(self.model(input_ids_BT, positions_BT, document_ids_BT, None))
        head = self.lm_head.dense_weight().detach()
        return TeacherStates(h_BTD.flatten(0, 1), head, self.operations, self.config.logit_softcap)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.norm.parameters()).device

    def _scaled(self, h_BTD: Tensor) -> Tensor:
        """Divide hidden states by `logits_scaling`. This is equivalent to a division of the logits."""
        return h_BTD if self.config.logits_scaling is None else h_BTD / self.config.logits_scaling

    def logits(self, h_BTD: Tensor) -> Tensor:
        """Return the logits of the next tokens, of shape (..., V), in fp32.

        Args:
            h_BTD: Output of the decoder, of shape (..., D).
        """
        logits_BTV = self.lm_head(self._scaled(h_BTD))
        return softcapped(logits_BTV, self.config.logit_softcap).float()

    def set_dropout(self, dropout: float, token_dropout: float = 0.0) -> None:
        """Set the dropout probabilities during training.

        Args:
            dropout: Dropout probability for the outputs of attention and MLP (Srivastava et al. 2014).
            token_dropout: Probability that the embedding of an input token is set to 0, and the model has to predict
                from a context with gaps ("word dropout" in Bowman et al. 2016, arXiv:1511.06349).
        """
        self.model.token_dropout = token_dropout
        for layer in self.model.layers:
            assert isinstance(layer, Block)
            layer.dropout = dropout

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """Return an empty KV cache.

        Args:
            batch_size: Number of sequences.
            max_length: Maximum number of tokens per sequence.
        """
        return KVCache(self._cache_shape(batch_size, max_length))

    @property
    def cache_bytes_per_token(self) -> int:
        """Size in bytes of the cached keys and values of one token."""
        return self._cache_shape(1, 1).bytes_per_token

    def _cache_shape(self, batch_size: int, max_length: int) -> CacheShape:
        dtype = self.model.compute_dtype
        return CacheShape(
            self.config.n_layers,
            batch_size,
            max_length,
            self.config.n_kv_heads,
            self.config.head_dim,
            dtype=self.model.embed_tokens.weight.dtype if dtype is None else dtype,
            device=self.device,
        )
