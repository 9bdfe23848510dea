"""Model shapes that all programs use, and the formula for FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a GPT-2-like model, and the batch size.

    Attributes:
        name: Name of the shape on the command line.
        n_layers: Number of layers.
        dim: Hidden size.
        n_heads: Number of attention heads.
        context: Context length in tokens.
        vocab_size: Vocabulary size.
        rows: Batch size in windows of `context` tokens.
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
        """Number of tokens per optimizer step."""
        return self.rows * self.context

    @property
    def matmul_parameters(self) -> int:
        """Number of parameters in the linear layers of GPT-2, including the output projection.

        Each block has 12 dim^2 parameters in linear layers. No program has fewer.
        """
        return 12 * self.dim**2 * self.n_layers + self.vocab_size * self.dim

    def flops_per_token(self, matmul_parameters: int) -> int:
        """Return the training FLOPs per token, with the formula of the PaLM paper (Appendix B).

        The number is 6 per parameter in linear layers, plus 12 x layers x hidden size x context length for attention.
        All programs are measured with this formula, even if a program does not compute the masked half of attention.
        nanoGPT and nanochat use the same formula.
        """
        return 6 * matmul_parameters + 12 * self.n_layers * self.dim * self.context

    def to_json(self) -> dict[str, Any]:
        """Return the shape as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Shape:
        """Create a shape from the result of `to_json`."""
        return cls(**record)


CPU_SHAPES = {
    "a": Shape("a", n_layers=6, dim=384, n_heads=6, context=512, vocab_size=8192, rows=16),
    # the model that `groundup run quickstart` plans on 2 cores
    "quickstart": Shape("quickstart", n_layers=3, dim=192, n_heads=3, context=512, vocab_size=7232, rows=16),
    "b": Shape("b", n_layers=12, dim=768, n_heads=12, context=512, vocab_size=50304, rows=4),
}
GPU_SHAPES = {
    "124m": Shape("124m", n_layers=12, dim=768, n_heads=12, context=1024, vocab_size=50304, rows=32),
    "350m": Shape("350m", n_layers=24, dim=1024, n_heads=16, context=1024, vocab_size=50304, rows=16),
}
# This shape is for a quick test of the benchmark. Results with this shape are not meaningful.
TINY = Shape("tiny", n_layers=2, dim=64, n_heads=2, context=64, vocab_size=512, rows=4)


def matmul_parameters(model: nn.Module) -> int:
    """Return the number of weights in linear layers, including the output projection even if it is tied.

    Embeddings, norms and biases do not count. The GPT-2 model of transformers uses the class Conv1D for linear layers.
    """
    weights = [
        module.get_parameter("weight")
        for module in model.modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    return sum(weight.numel() for weight in weights)
