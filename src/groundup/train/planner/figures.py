"""Compute the parameters, FLOPs and memory of an architecture from its config, without creating the model."""

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

_WEIGHT_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Figures:
    """Parameters, FLOPs and memory of an architecture. The planner uses the same formulas.

    Attributes:
        shape: The architecture.
        parameters: Number of parameters.
        matmul_parameters: Number of matmul parameters, i.e. without embeddings.
        training_flops: Training FLOPs per token, averaged over the positions of a full context.
        inference_flops: Inference FLOPs per token, averaged over the positions of a full context.
        weight_bytes: Maps a dtype to the memory of the weights in bytes.
        cache_bytes: Maps a dtype to the memory of the KV cache in bytes per token.
        training_bytes: Memory in bytes for training in fp32 with AdamW, with a single row of full context length.
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
        """Compute the parameters, FLOPs and memory of an architecture."""
        return cls(
            shape=config,
            parameters=parameter_count(config),
            matmul_parameters=matmul_parameters(config),
            training_flops=flops_per_token(config),
            inference_flops=inference_flops_per_token(config),
            weight_bytes={dtype: weight_bytes(config, dtype) for dtype in _WEIGHT_DTYPES},
            cache_bytes={dtype: cache_bytes(config, 1, dtype) for dtype in _WEIGHT_DTYPES},
            training_bytes=training_bytes(config, 1),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the parameters, FLOPs and memory as JSON values."""
        return {
            "shape": self.shape.to_json(),
            "parameters": self.parameters,
            "matmul_parameters": self.matmul_parameters,
            "flops_per_token": {"training": self.training_flops, "inference": self.inference_flops},
            "memory_bytes": {
                "weights": self.weight_bytes,
                "cache_per_token": self.cache_bytes,
                "training": self.training_bytes,
            },
        }


def describe_shape(config: ModelConfig) -> str:
    """Return a description of the architecture in one line, e.g. for the console."""
    heads = f"{config.n_heads} heads of {config.head_dim}"
    if config.n_kv_heads != config.n_heads:
        heads += f" ({config.n_kv_heads} KV heads)"
    parts = [f"{config.n_layers} layers, hidden size {config.dim:,}", heads, f"FFN size {config.ffn_dim:,}"]
    if config.sliding_window is not None:
        sliding = sum(config.slides(layer) for layer in range(config.n_layers))
        parts.append(f"{sliding} layers with a sliding window of {config.sliding_window:,} tokens")
    return ", ".join(parts)
