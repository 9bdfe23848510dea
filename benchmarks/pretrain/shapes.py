"""The shapes that everyone is timed at, and the one formula of FLOPs for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Shape:
    """A GPT-2-like model and the tokens of one optimizer step.

    Attributes:
        name: how it is called on the command line.
        rows: windows of `context` tokens in a step.
    """

    name: str
    n_layers: int
    dim: int
    n_heads: int
    context: int
    vocab_size: int
    rows: int

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.rows * self.context

    @property
    def product_parameters(self) -> int:
        """Of the plain GPT-2 block (12 dim^2) and its head: what a contender must at least have."""
        return 12 * self.dim**2 * self.n_layers + self.vocab_size * self.dim

    def flops_per_token(self, product_parameters: int) -> int:
        """Training FLOPs of a token for a model of this shape with so many parameters in matrix products.

        6 for each of them, and 12 L D T for attention, the half that a causal mask hides included: the formula of
        PaLM's appendix B, and of nanoGPT and nanochat. It counts the same work for everyone, whoever skips some of it.
        """
        return 6 * product_parameters + 12 * self.n_layers * self.dim * self.context

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Shape:
        """From what `to_json` gave."""
        return cls(**record)


CPU_SHAPES = {
    "a": Shape("a", n_layers=6, dim=384, n_heads=6, context=512, vocab_size=8192, rows=16),
    "b": Shape("b", n_layers=12, dim=768, n_heads=12, context=512, vocab_size=50304, rows=4),
}
GPU_SHAPES = {
    "124m": Shape("124m", n_layers=12, dim=768, n_heads=12, context=1024, vocab_size=50304, rows=32),
    "350m": Shape("350m", n_layers=24, dim=1024, n_heads=16, context=1024, vocab_size=50304, rows=16),
}
# For trying the harness out: seconds instead of minutes, and figures that say nothing.
TINY = Shape("tiny", n_layers=2, dim=64, n_heads=2, context=64, vocab_size=512, rows=4)


def product_parameters(model: nn.Module) -> int:
    """Parameters that multiply every token's vector: the matrices of linear layers, found in the built model.

    Embedding tables, norms and biases do not. A tied head counts, being a linear layer of its own. GPT-2 in
    transformers calls its linear layers Conv1D.
    """
    weights = [
        module.get_parameter("weight")
        for module in model.modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    return sum(weight.numel() for weight in weights)
