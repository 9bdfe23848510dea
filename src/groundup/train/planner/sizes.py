"""Choose the size of a model: the architecture for each number of layers, and the depth with the best forecast."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from groundup.model import ModelConfig
from groundup.model.families import FAMILIES
from groundup.model.flops import flops_per_token, training_bytes
from groundup.train.planner.forecast import Forecast

MAX_DEPTH = 64
BASE_EPOCHS = 4.0  # maximum number of epochs of a base model (Muennighoff et al. 2023, arXiv:2305.16264)
MAX_SPEEDUP = 4  # factor by which a run with a time limit may have more tokens than planned if it is faster
HEAD_DIM = 64
WIDTH_PER_LAYER = 64


def shape_for_depth(depth: int, vocab_size: int, given: Mapping[str, Any]) -> ModelConfig:
    """Return the architecture for a number of layers.

    By default the hidden size is 64 times the number of layers, and the head dimension is 64. The FFN size is 8/3 of
    the hidden size, or 4 times the hidden size for MLPs without gating. The hidden size is rounded up to a multiple of
    the number of heads.

    Args:
        depth: Number of layers.
        vocab_size: Vocabulary size.
        given: Fields of `ModelConfig` that override the derived values, including `family` and `context_length`.

    Raises:
        ConfigError: The given fields contradict each other.
    """
    family = FAMILIES[given["family"]]
    whole = family.multi_head_only
    heads = given.get("n_heads") or (given.get("n_kv_heads") if whole else None)
    dim = given.get("dim") or _multiple(WIDTH_PER_LAYER * max(2, given.get("n_layers") or depth), 2 * (heads or 1))
    if heads:
        head_dim = dim // heads if whole else max(2, dim // heads // 2 * 2)
    elif whole:  # head_dim must divide dim, and must be even if the family uses RoPE
        step = 2 if family.positions == "rotary" else 1
        head_dim = max((size for size in range(step, HEAD_DIM + 1, step) if dim % size == 0), default=dim)
    else:
        head_dim = min(HEAD_DIM, max(2, dim // 2 * 2))
    n_heads = heads or _multiple(max(1, dim // given.get("head_dim", head_dim)), given.get("n_kv_heads", 1))
    derived = {
        "dim": dim,
        "n_layers": depth,
        "n_heads": n_heads,
        "n_kv_heads": n_heads,
        "head_dim": head_dim,
        "ffn_dim": _multiple(math.ceil(8 * dim / 3), 64) if family.gated else 4 * dim,
        "tie_embeddings": family.tie_embeddings,
    }
    return ModelConfig(**derived | dict(given) | {"vocab_size": vocab_size})


def _multiple(value: int, of: int) -> int:
    """Round up to a multiple."""
    return -(-value // of) * of


@dataclass(frozen=True)
class Sizes:
    """Sizes that the planner compares.

    Attributes:
        vocab_size: Vocabulary size.
        given_shape: Fields of `ModelConfig` that override the derived values.
        forecast: Scaling law and training text.
        max_epochs: Maximum number of epochs, or None for as many as are useful.
        memory_bytes: Available memory in bytes, or None if unknown.
        max_depth: Maximum number of layers.
    """

    vocab_size: int
    given_shape: Mapping[str, Any]
    forecast: Forecast
    max_epochs: float | None
    memory_bytes: int | None
    max_depth: int = MAX_DEPTH

    def shape(self, depth: int) -> ModelConfig:
        """Return the architecture for a number of layers."""
        return shape_for_depth(self.given_shape.get("n_layers") or depth, self.vocab_size, self.given_shape)

    @cached_property
    def shapes(self) -> dict[int, ModelConfig]:
        """Map each depth whose training fits into memory to its architecture; always contains depth 2."""
        shapes = {2: self.shape(2)}
        for depth in range(3, 3 if "n_layers" in self.given_shape else self.max_depth + 1):
            config = self.shape(depth)
            if self.memory_bytes is not None and training_bytes(config, 1) > self.memory_bytes:
                break
            shapes[depth] = config
        return shapes

    def limit(self, tokens: float) -> float:
        """Return the number of tokens, limited by the maximum number of epochs that the user has set."""
        return tokens if self.max_epochs is None else min(tokens, self.max_epochs * self.forecast.tokens)

    def useful_tokens(self, config: ModelConfig, tokens: float) -> float:
        """Return at most `tokens` tokens, limited by the user or by the scaling law."""
        return self.limit(tokens) if self.max_epochs else self.forecast.useful_tokens(config, tokens)

    def max_tokens(self, config: ModelConfig, planned: float, affordable: float) -> float:
        """Return the maximum number of tokens of a run with a time limit, which may be faster than measured.

        Args:
            config: Architecture.
            planned: Planned number of tokens.
            affordable: Number of tokens at the measured speed.
        """
        if self.max_epochs is not None:
            return self.limit(MAX_SPEEDUP * affordable)
        return planned if planned < affordable else self.forecast.best_tokens(config, MAX_SPEEDUP * affordable)

    def best_depth(
        self, tokens: Callable[[ModelConfig], float], depths: Iterable[int] | None = None, *, teaches: bool = False
    ) -> int:
        """Return the depth with the lowest predicted bits per byte.

        Args:
            tokens: Returns the number of tokens on which an architecture can be trained.
            depths: Depths to choose from. Default: all depths whose training fits into memory.
            teaches: Whether teachers may be trained.
        """

        def predicted(depth: int) -> float:
            config = self.shapes[depth]
            return self.forecast.best_bits_per_byte(config, tokens(config), teaches=teaches)

        return min(self.shapes if depths is None else depths, key=predicted)

    def depth_for_tokens(self, tokens: float) -> int:
        """Return the largest depth for which fewer layers and more tokens would not be better at the same compute.

        Args:
            tokens: Number of tokens of the run.
        """
        largest = 2
        for depth, config in self.shapes.items():
            flops = self.useful_tokens(config, tokens) * flops_per_token(config)
            if self.best_depth(lambda other, flops=flops: flops / flops_per_token(other)) < depth:  # type: ignore[misc]
                break
            largest = depth
        return largest
