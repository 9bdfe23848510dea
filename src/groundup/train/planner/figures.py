"""A shape in figures: what it costs to keep, to train and to ask, before a single weight is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from groundup.model.config import ModelConfig
from groundup.model.flops import (
    Dtype,
    cache_bytes,
    flops_per_token,
    inference_flops_per_token,
    matmul_parameters,
    parameter_count,
    training_bytes,
    weight_bytes,
)

_KEPT_IN: tuple[Dtype, ...] = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Figures:
    """By the formulas that plan a training run.

    Attributes:
        matmul_parameters: those that take part in products for every token; not the table of embeddings.
        training_flops, inference_flops: of one token, on average over a window as long as the context.
        weight_bytes, cache_bytes: by dtype; the latter of the keys and values of one token.
        training_bytes: of training one window as long as the context at a time, in fp32 with AdamW's state.
    """

    shape: ModelConfig
    parameters: int
    matmul_parameters: int
    training_flops: int
    inference_flops: int
    weight_bytes: dict[str, int]
    cache_bytes: dict[str, int]
    training_bytes: int

    @classmethod
    def of(cls, config: ModelConfig) -> Figures:
        """The figures of a shape."""
        return cls(
            shape=config,
            parameters=parameter_count(config),
            matmul_parameters=matmul_parameters(config),
            training_flops=flops_per_token(config),
            inference_flops=inference_flops_per_token(config),
            weight_bytes={dtype: weight_bytes(config, dtype) for dtype in _KEPT_IN},
            cache_bytes={dtype: cache_bytes(config, 1, dtype) for dtype in _KEPT_IN},
            training_bytes=training_bytes(config, 1),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "shape": self.shape.to_json(),
            "parameters": self.parameters,
            "product_parameters": self.matmul_parameters,
            "flops_per_token": {"training": self.training_flops, "inference": self.inference_flops},
            "memory_bytes": {
                "weights": self.weight_bytes,
                "cache_per_token": self.cache_bytes,
                "training": self.training_bytes,
            },
        }


def described(config: ModelConfig) -> str:
    """The shape in one line, for people."""
    heads = f"{config.n_heads} heads of {config.head_dim}"
    if config.n_kv_heads != config.n_heads:
        heads += f" ({config.n_kv_heads} for keys and values)"
    parts = [f"{config.n_layers} layers, {config.dim:,} wide", heads, f"feed-forward {config.ffn_dim:,}"]
    if config.sliding_window is not None:
        sliding = sum(config.slides(layer) for layer in range(config.n_layers))
        parts.append(f"{sliding} layers that see {config.sliding_window:,} tokens")
    return ", ".join(parts)
