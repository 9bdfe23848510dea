"""One dial to a whole run: minutes, tokens or depth in; shape, batch, steps and learning rates out.

The rules were fitted on small runs (`benchmarks/ablations.md`) and stay with published ones beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from groundup.errors import ConfigError
from groundup.model import Family, ModelConfig
from groundup.optim import OptimizerConfig
from groundup.planner.flops import flops_per_token, product_parameters

# Tokens a parameter (of those in products) that a depth is worth training for. Chinchilla's 20 (arXiv:2203.15556) is
# for runs that can afford it: TOKENS_PER_PARAMETER is what `--depth` gives. Minutes on a CPU buy far less, and there
# the larger model wins long before: measured at 20-100 TFLOP in all.
TOKENS_PER_PARAMETER = 20.0
FEWEST_TOKENS_PER_PARAMETER = 0.5
HEAD_DIM = 64
WIDTH_PER_LAYER = 64
DECAY_FRACTION = 0.6
WARMUP_FRACTION = 0.02
MOST_EPOCHS = 4.0  # repeats beyond four teach little (Muennighoff et al. 2023, arXiv:2305.16264)

Measure = Callable[[ModelConfig], float]
"""Tokens per second of real training steps of a shape, at the batch that `batch_rows` gives."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a run that its result depends on. Made once, saved before step 1, read by every resume."""

    model: ModelConfig
    optimizer: OptimizerConfig
    micro_batch_size: int
    grad_accum_steps: int
    total_steps: int
    warmup_steps: int
    decay_steps: int
    epochs: float
    expected_tokens_per_second: float | None = None

    @property
    def global_batch_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.micro_batch_size * self.grad_accum_steps * self.model.context_length

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.total_steps * self.global_batch_tokens

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """From what `to_json` gave."""
        optimizer = dict(record["optimizer"]) | {"betas": tuple(record["optimizer"]["betas"])}
        return cls(
            **dict(record)
            | {"model": ModelConfig(**record["model"]), "optimizer": OptimizerConfig(**optimizer)}
        )
