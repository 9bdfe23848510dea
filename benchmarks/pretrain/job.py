"""The job of a worker process, and the interface of drivers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.shapes import Shape

Variant = Literal[
    "baseline",
    "AdamW",
    "no QK-norm",
    "z-loss 1e-4",
    "no document masking",
    "half batch size",
    "double batch size",
    "batch size warm-up",
]
"""Training of groundup with one change. "batch size warm-up" halves the batch in the first third of the steps."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training run in a worker process.

    Attributes:
        driver: Name of the module in `benchmarks.pretrain.drivers`.
        shape: Shape of the model and batch size.
        tokens: Directory of token shards.
        dtype: "float32" or "bfloat16". groundup chooses the dtype itself, so for groundup only the value "float8" has
            an effect: matmuls in the layers then use fp8.
        device: "cpu" or "cuda".
        checkout: Directory that contains the code of the program, or None if the program is installed.
        family: Model family. Only groundup uses it.
        matrices: Optimizer for the weight matrices in layers. Only groundup uses it.
        fused: Whether to use PyTorch's fused AdamW. Only nanoGPT uses it.
        seed: Random seed.
        variant: Variant of the training for the ablation. Only groundup uses it.
    """

    driver: str
    shape: Shape
    tokens: Path
    dtype: str = "float32"
    device: str = "cpu"
    checkout: Path | None = None
    family: str = "qwen3"
    matrices: Literal["adamw", "muon"] = "adamw"
    fused: bool = False
    seed: int = 0
    variant: Variant = "baseline"

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        paths = {"tokens": str(self.tokens), "checkout": str(self.checkout) if self.checkout else None}
        return asdict(self) | paths

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Job:
        """Create a job from the result of `to_json`."""
        checkout = record["checkout"]
        fields = {
            "shape": Shape.from_json(record["shape"]),
            "tokens": Path(record["tokens"]),
            "checkout": Path(checkout) if checkout else None,
        }
        return cls(**dict(record) | fields)


Logits = Callable[[Tensor], Tensor]
"""input_ids (B, T) -> logits (B, T, V) of the trained model, for the scorer."""


class Driver(Protocol):
    """A function that trains the model of a program until the clock ends training."""

    def __call__(self, job: Job, clock: Clock) -> Logits:
        """Train the model, and return a function that computes the logits of the trained model."""
        ...
