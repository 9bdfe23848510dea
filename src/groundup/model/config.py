"""The shape of a model, in the field's words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from groundup.errors import ConfigError

Family = Literal["gpt2", "llama", "qwen3"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One of three families that the ecosystem runs without custom code.

    Attributes:
        family: "qwen3" (RoPE, RMSNorm, SwiGLU, GQA and RMS-normalized queries and keys), "llama" (the same without
            that normalization) or "gpt2" (learned positions, LayerNorm, GELU, biases everywhere).
        dim: width of the residual stream.
        n_kv_heads: key and value heads; fewer than `n_heads` is grouped-query attention (arXiv:2305.13245).
        ffn_dim: width inside the feed-forward layer.
        context_length: most positions that a window may have.
        rope_theta: base of the rotary frequencies (arXiv:2104.09864); unused by "gpt2".
        tie_embeddings: one matrix both embeds tokens and scores them.
    """

    family: Family
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    context_length: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(
                f"family = {self.family!r}",
                rule=f"the families are {', '.join(FAMILIES)}",
                fix="Choose one of them; qwen3 is the default for training from scratch.",
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", "float") and not value > 0:
                raise ConfigError(
                    f"{field.name} = {value}",
                    rule="sizes are positive",
                    fix=f"Give {field.name} a positive value.",
                )
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"n_heads = {self.n_heads}, n_kv_heads = {self.n_kv_heads}",
                rule="each key head serves the same number of query heads",
                fix="Choose n_kv_heads so that it divides n_heads.",
            )
        if self.head_dim % 2 and self.family != "gpt2":
            raise ConfigError(
                f"head_dim = {self.head_dim}",
                rule="rotary positions turn pairs of features",
                fix="Choose an even head_dim, e.g. 64.",
            )
        if self.family == "gpt2" and (self.n_kv_heads != self.n_heads or self.n_heads * self.head_dim != self.dim):
            raise ConfigError(
                f"n_heads = {self.n_heads}, n_kv_heads = {self.n_kv_heads}, head_dim = {self.head_dim}",
                rule=f"GPT-2 has one key head a query head, and n_heads x head_dim = dim = {self.dim}",
                fix="Set n_kv_heads = n_heads and head_dim = dim / n_heads, or choose family = llama or qwen3.",
            )

    @property
    def rotary(self) -> bool:
        """Whether positions enter as rotations of queries and keys (else as a learned embedding)."""
        return self.family != "gpt2"

    @property
    def bias(self) -> bool:
        """Whether the linear layers have biases."""
        return self.family == "gpt2"

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalized before they are rotated."""
        return self.family == "qwen3"
