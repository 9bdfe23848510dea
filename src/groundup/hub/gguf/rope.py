"""Stretched rotary frequencies in GGUF: some keys for "linear" and "yarn", a tensor of divisors for Llama 3's.

Shape letters: P pairs of features (head_dim / 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.gguf.header import MetaValue
from groundup.hub.gguf.keys import Keys
from groundup.model import ModelConfig
from groundup.model.attention import Rotary
from groundup.model.config import RopeScaling

_TYPE, _FACTOR, _ORIGINAL = "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"
_OLD_FACTOR = "rope.scale_linear"
_MAGNITUDE = "rope.scaling.attn_factor"  # llama.cpp multiplies 0.1 ln(factor) + 1 by it
_THEIR_MAGNITUDE = "rope.scaling.yarn_attn_factor"  # what Hugging Face's config says, as converters leave it
_BETA_FAST, _BETA_SLOW = "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"
_LLAMA3 = (8192, 1.0, 4.0)  # context, low and high of every Llama 3 so far


def write_scaling(config: ModelConfig) -> tuple[dict[str, MetaValue], Tensor | None]:
    """Keys below the architecture's name, and the divisors (P) that llama.cpp wants for a "llama3" scaling.

    Raises:
        FormatError: llama.cpp has no word for it.
    """
    scaling = config.rope_scaling
    if scaling is None:
        return {}, None
    if scaling.kind == "llama3":
        if config.declared.gguf is None or not config.declared.gguf.llama3_scaling:
            raise _unsaid("rope_scaling.kind = 'llama3'", f"llama.cpp has it for llama models, not for {config.family}")
        plain_P = Rotary(config.head_dim, config.rope_theta).frequencies_P
        stretched_P = Rotary(config.head_dim, config.rope_theta, scaling).frequencies_P
        return {}, plain_P / stretched_P
    keys: dict[str, MetaValue] = {_TYPE: scaling.kind, _FACTOR: float(scaling.factor)}
    if scaling.kind == "linear":
        return keys, None
    assert scaling.original_context_length is not None
    if not scaling.truncate or (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
        raise _unsaid(
            f"rope_scaling with truncate = {scaling.truncate}, beta_fast = {scaling.beta_fast}, "
            f"beta_slow = {scaling.beta_slow}",
            f"llama.cpp blends whole pairs between 32 turns and 1 in {config.family} models",
        )
    keys[_ORIGINAL] = scaling.original_context_length
    if scaling.attention_factor is not None:
        keys[_THEIR_MAGNITUDE] = float(scaling.attention_factor)
        keys[_MAGNITUDE] = scaling.attention_factor / _yarn_magnitude(scaling.factor)
    return keys, None


def read_scaling(keys: Keys, divisors_P: Tensor | None, theta: float, head_dim: int) -> RopeScaling | None:
    """What metadata and the tensor of divisors say.

    Raises:
        FormatError: a scaling that is not known.
    """
    if divisors_P is not None and bool((divisors_P != 1).any()):
        return _llama3_from(divisors_P, theta, head_dim)
    factor = float(keys.number(_FACTOR, 0.0) or keys.number(_OLD_FACTOR, 0.0))
    kind = keys.get(_TYPE) or "linear"
    if kind == "none" or factor in (0.0, 1.0):
        return None
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind != "yarn":
        raise keys.refused(_TYPE, "linear, yarn and Llama 3's scaling of rotary positions are read")
    magnitude: float | None = keys.number(_THEIR_MAGNITUDE, 0.0) or None
    if magnitude is None and keys.get(_MAGNITUDE) is not None:
        magnitude = keys.number(_MAGNITUDE) * _yarn_magnitude(factor)
    return RopeScaling(
        "yarn",
        factor,
        original_context_length=keys.size(_ORIGINAL, keys.size("context_length")),
        beta_fast=float(keys.number(_BETA_FAST, 32.0)),
        beta_slow=float(keys.number(_BETA_SLOW, 1.0)),
        attention_factor=magnitude,
    )


def _yarn_magnitude(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _llama3_from(divisors_P: Tensor, theta: float, head_dim: int) -> RopeScaling:
    """The scaling whose divisors these are: the usual one, or one fitted to the blended frequencies.

    Divisor = 1 / (kept + (1 - kept) / factor), and `kept` is linear in the frequency: two blended ones give the line.
    It fixes context, low and high only up to a common multiple, which changes nothing.
    """
    if divisors_P.shape != (head_dim // 2,) or not bool((divisors_P >= 1).all()):
        raise _no_llama3(f"{tuple(divisors_P.shape)} divisors from {float(divisors_P.min()):g}")
    divisors_P = divisors_P.double()
    plain_P = Rotary(head_dim, theta).frequencies_P.double()
    factor = round(float(divisors_P.max()), 4)
    kept_P = (1 / divisors_P - 1 / factor) / (1 - 1 / factor)
    for context, low, high in (_LLAMA3, *_fitted(plain_P / (2 * math.pi), kept_P)):
        if context < 1 or not 0 < low < high:
            continue
        scaling = RopeScaling("llama3", factor, context, low_freq_factor=low, high_freq_factor=high)
        if torch.allclose(plain_P / Rotary(head_dim, theta, scaling).frequencies_P.double(), divisors_P, rtol=1e-4):
            return scaling
    raise _no_llama3(f"divisors {', '.join(f'{each:.4g}' for each in divisors_P[:8].tolist())}, ...")


def _fitted(turns_P: Tensor, kept_P: Tensor) -> Iterator[tuple[int, float, float]]:
    """Contexts, and where the blend begins and ends in turns over them; `turns_P` are those in a context of one."""
    blended_P = (kept_P > 1e-4) & (kept_P < 1 - 1e-4)
    if int(blended_P.sum()) > 1:
        sides = torch.stack([turns_P[blended_P], -torch.ones_like(turns_P[blended_P])], dim=1)
        slope, intercept = torch.linalg.lstsq(sides, kept_P[blended_P, None]).solution.flatten().tolist()
        if slope > 0 and intercept > 0:
            exact = slope / intercept  # the context, if the blend begins at one turn
            low = max(1, round(exact)) / exact
            high = low * (1 + 1 / intercept)
            yield round(exact), round(low, 3), round(high, 3)
            yield round(exact), low, high
    elif bool((kept_P > 0.5).any()) and bool((kept_P < 0.5).any()):  # none between, or one: a line through the gap
        last, first = float(turns_P[kept_P > 0.5].min()), float(turns_P[kept_P < 0.5].max())
        _, low, high = _LLAMA3
        yield round(math.sqrt(low * high / (last * first))), low, high


def _no_llama3(value: str) -> FormatError:
    return FormatError(
        f"rope_freqs.weight with {value}",
        rule="Llama 3's scaling of rotary frequencies is read",
        fix="Choose another model.",
    )


def _unsaid(value: str, rule: str) -> FormatError:
    return FormatError(value, rule=rule, fix="Such a model cannot become a GGUF file; use the model directory.")
