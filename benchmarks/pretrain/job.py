"""What one contender is asked to do in its own process, and what its driver must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.shapes import Shape

Variant = Literal[
    "as it is",
    "AdamW",
    "no QK-norm",
    "z-loss 1e-4",
    "documents not told apart",
    "half a batch",
    "two batches",
    "batch ramp",
]
"""Our training with one thing changed; "batch ramp": half a batch in the first third of the steps."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training in one process.

    Attributes:
        driver: module in `benchmarks.pretrain.drivers`.
        checkout: directory with the peer's code; None: it is installed, or is ours.
        tokens: token shards.
        dtype: "float32" or "bfloat16"; of ours only "float8" counts, which the layers' products are then computed in.
        family: of our model.
        matrices: our optimizer of the matrices inside the layers, "adamw" or "muon".
        variant: of our training.
    """

    driver: str
    shape: Shape
    tokens: Path
    dtype: str = "float32"
    device: str = "cpu"
    checkout: Path | None = None
    family: str = "qwen3"
    matrices: Literal["adamw", "muon"] = "adamw"
    seed: int = 0
    variant: Variant = "as it is"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        paths = {"tokens": str(self.tokens), "checkout": str(self.checkout) if self.checkout else None}
        return asdict(self) | paths

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Job:
        """From what `to_json` gave."""
        checkout = record["checkout"]
        changed = {
            "shape": Shape.from_json(record["shape"]),
            "tokens": Path(record["tokens"]),
            "checkout": Path(checkout) if checkout else None,
        }
        return cls(**dict(record) | changed)


Logits = Callable[[Tensor], Tensor]
"""input_ids (B, T) -> logits (B, T, V) of the trained model, for the scorer."""


class Driver(Protocol):
    """Trains a contender's own model by its own step until the clock has enough."""

    def __call__(self, job: Job, clock: Clock) -> Logits: ...
