"""Random weights of a model with 1.5 billion parameters, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from groundup.model import ModelConfig


def qwen_config(vocab_size: int = 151_936, layers: int = 28) -> ModelConfig:
    """Return a config with the shape of Qwen2.5-1.5B."""
    from groundup.model import ModelConfig

    return ModelConfig("qwen2", 1536, layers, 12, 2, 128, 8960, vocab_size, 32_768, rope_theta=1e6, tie_embeddings=True)


class RandomWeights(Mapping[str, "Tensor"]):
    """State dict of a model with random bf16 weights, which are created when they are accessed.

    Args:
        config: The model's config.
    """

    def __init__(self, config: ModelConfig) -> None:
        import torch

        from groundup.model import Transformer

        with torch.device("meta"):
            self.shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}

    @property
    def parameters(self) -> int:
        """Number of parameters. Tied embeddings count once."""
        return sum(shape.numel() for name, shape in self.shapes.items() if name != "lm_head.weight")

    def __getitem__(self, name: str) -> Tensor:
        import torch

        generator = torch.Generator().manual_seed(hash(self.shapes[name]) % 2**31)
        return torch.empty(self.shapes[name], dtype=torch.bfloat16).normal_(std=0.02, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
