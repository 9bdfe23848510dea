"""Rotary positions (arXiv:2104.09864), and how their frequencies are stretched for a longer context.

Shape letters: B batch, T sequence, N heads, H head_dim, P pairs of features (H / 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from groundup.model.config import RopeScaling


class Rotary(nn.Module):
    """Cosines and sines of positions, once for all layers that turn alike (halves, not interleaved pairs).

    They are made when they are asked for: a table of a context of 131,072 would outweigh many a small model.
    """

    frequencies_P: Tensor

    def __init__(self, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        # Named device: a model that is built on the meta device and given its weights later has real frequencies.
        # The quotient of a power, not a negative power: they differ in the last bit, and at position 100,000 in angle.
        frequencies_P = 1.0 / theta ** (torch.arange(0, head_dim, 2, device="cpu").float() / head_dim)
        self.magnitude = 1.0
        if scaling is not None:
            frequencies_P = _SCALINGS[scaling.kind](frequencies_P, head_dim, theta, scaling)
            if scaling.kind == "yarn":
                self.magnitude = scaling.attention_factor or _yarn_magnitude(scaling.factor)
        self.register_buffer("frequencies_P", frequencies_P, persistent=False)

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cos and sin as (B, T, 1, H), to be broadcast over heads."""
        angles_BT1P = positions_BT[:, :, None, None].float() * self.frequencies_P
        cos, sin = angles_BT1P.cos() * self.magnitude, angles_BT1P.sin() * self.magnitude
        return torch.cat([cos, cos], dim=-1), torch.cat([sin, sin], dim=-1)


def _linear(frequencies_P: Tensor, head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    return frequencies_P / scaling.factor


def _llama3(frequencies_P: Tensor, head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: by how often a pair turns within the original context."""
    assert scaling.original_context_length is not None
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns_P = scaling.original_context_length * frequencies_P / (2 * math.pi)
    kept_P = ((turns_P - low) / (high - low)).clamp(0, 1)
    return (1 - kept_P) * frequencies_P / scaling.factor + kept_P * frequencies_P


def _yarn(frequencies_P: Tensor, head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """arXiv:2309.00071, section 3.2: the same idea, blended linearly in the index of the pair."""
    context = scaling.original_context_length
    assert context is not None

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(context / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001  # a step rather than a division by zero
    pairs_P = torch.arange(head_dim // 2, device="cpu").float()
    divided_P = ((pairs_P - first) / (last - first)).clamp(0, 1)
    return divided_P * frequencies_P / scaling.factor + (1 - divided_P) * frequencies_P


def _yarn_magnitude(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


_SCALINGS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn}
