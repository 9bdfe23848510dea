"""Conversion between model configs and GGUF metadata, for architectures that llama.cpp and groundup both support."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.gguf.header import MetaValue
from groundup.hub.gguf.keys import Keys
from groundup.hub.gguf.weights import OUTPUT, TOKEN_EMBEDDING
from groundup.model import ModelConfig
from groundup.model.attention import Rotary
from groundup.model.config import RopeScaling
from groundup.model.families import FAMILIES, GUIDE
from groundup.model.families.base import Family, Gguf, Key

_TYPE, _FACTOR, _ORIGINAL = "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"
_OLD_FACTOR = "rope.scale_linear"
_MAGNITUDE = "rope.scaling.attn_factor"  # llama.cpp multiplies this value by 0.1 ln(factor) + 1.
_HF_MAGNITUDE = "rope.scaling.yarn_attn_factor"  # Value of `attention_factor` in Hugging Face's config.
_BETA_FAST, _BETA_SLOW = "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"
# Original context length, low_freq_factor and high_freq_factor of all published Llama 3 models.
_LLAMA3 = (8192, 1.0, 4.0)


def write_scaling(config: ModelConfig) -> tuple[dict[str, MetaValue], Tensor | None]:
    """Convert a RoPE scaling to GGUF.

    Returns:
        The metadata keys (without the prefix of the architecture), and the divisor of each RoPE frequency. The divisors
        are None unless the scaling is "llama3".

    Raises:
        FormatError: llama.cpp does not support the scaling.
    """
    scaling = config.rope_scaling
    if scaling is None:
        return {}, None
    if scaling.kind == "llama3":
        if config.declared.gguf is None or not config.declared.gguf.llama3_scaling:
            raise _unsupported(
                "rope_scaling.kind = 'llama3'", f"llama.cpp supports it for llama models, not for {config.family}"
            )
        unscaled_P = Rotary(config.head_dim, config.rope_theta).frequencies_P
        scaled_P = Rotary(config.head_dim, config.rope_theta, scaling).frequencies_P
        return {}, unscaled_P / scaled_P
    keys: dict[str, MetaValue] = {_TYPE: scaling.kind, _FACTOR: float(scaling.factor)}
    if scaling.kind == "linear":
        return keys, None
    assert scaling.original_context_length is not None
    if not scaling.truncate or (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
        raise _unsupported(
            f"rope_scaling with truncate = {scaling.truncate}, beta_fast = {scaling.beta_fast}, "
            f"beta_slow = {scaling.beta_slow}",
            f"llama.cpp supports only truncate = True, beta_fast = 32, beta_slow = 1 in {config.family} models",
        )
    keys[_ORIGINAL] = scaling.original_context_length
    if scaling.attention_factor is not None:
        keys[_HF_MAGNITUDE] = float(scaling.attention_factor)
        keys[_MAGNITUDE] = scaling.attention_factor / _yarn_magnitude(scaling.factor)
    return keys, None


def read_scaling(keys: Keys, divisors_P: Tensor | None, theta: float, head_dim: int) -> RopeScaling | None:
    """Return the RoPE scaling that the metadata and the tensor `rope_freqs.weight` describe.

    Raises:
        FormatError: the type of RoPE scaling is unknown.
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
        raise keys.refused(_TYPE, "supported RoPE scalings are linear, yarn and llama3")
    magnitude: float | None = keys.number(_HF_MAGNITUDE, 0.0) or None
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
    """Return a "llama3" scaling that has the given frequency divisors.

    The parameters of published Llama 3 models are tried first. Otherwise, the parameters are fitted to the interpolated
    frequencies. There, the divisor is 1 / (kept + (1 - kept) / factor), and `kept` is a linear function of the
    frequency. Two interpolated frequencies therefore determine the line. The line determines the context length and the
    low and high frequency factors, except for a common factor that has no effect.
    """
    if divisors_P.shape != (head_dim // 2,) or not bool((divisors_P >= 1).all()):
        raise _no_llama3(f"shape {tuple(divisors_P.shape)} and minimum {float(divisors_P.min()):g}")
    divisors_P = divisors_P.double()
    unscaled_P = Rotary(head_dim, theta).frequencies_P.double()
    factor = round(float(divisors_P.max()), 4)
    kept_P = (1 / divisors_P - 1 / factor) / (1 - 1 / factor)
    for context, low, high in (_LLAMA3, *_fitted(unscaled_P / (2 * math.pi), kept_P)):
        if context < 1 or not 0 < low < high:
            continue
        scaling = RopeScaling("llama3", factor, context, low_freq_factor=low, high_freq_factor=high)
        if torch.allclose(unscaled_P / Rotary(head_dim, theta, scaling).frequencies_P.double(), divisors_P, rtol=1e-4):
            return scaling
    raise _no_llama3(f"divisors {', '.join(f'{each:.4g}' for each in divisors_P[:8].tolist())}, ...")


def _fitted(turns_P: Tensor, kept_P: Tensor) -> Iterator[tuple[int, float, float]]:
    """Yield candidates for (original context length, low_freq_factor, high_freq_factor) of a "llama3" scaling.

    `turns_P` is the number of rotations per token of each RoPE frequency, and `kept_P` the fraction of each frequency
    that is not scaled.
    """
    blended_P = (kept_P > 1e-4) & (kept_P < 1 - 1e-4)
    if int(blended_P.sum()) > 1:
        sides = torch.stack([turns_P[blended_P], -torch.ones_like(turns_P[blended_P])], dim=1)
        slope, intercept = torch.linalg.lstsq(sides, kept_P[blended_P, None]).solution.flatten().tolist()
        if slope > 0 and intercept > 0:
            exact = slope / intercept  # The context length if low_freq_factor is 1.
            low = max(1, round(exact)) / exact
            high = low * (1 + 1 / intercept)
            yield round(exact), round(low, 3), round(high, 3)
            yield round(exact), low, high
    # If at most one frequency is interpolated, use the mean of the last kept and the first scaled frequency.
    elif bool((kept_P > 0.5).any()) and bool((kept_P < 0.5).any()):
        last, first = float(turns_P[kept_P > 0.5].min()), float(turns_P[kept_P < 0.5].max())
        _, low, high = _LLAMA3
        yield round(math.sqrt(low * high / (last * first))), low, high


def _no_llama3(value: str) -> FormatError:
    return FormatError(
        f"rope_freqs.weight with {value}",
        rule="the tensor must contain the frequency divisors of a llama3 RoPE scaling",
        fix="Choose another model.",
    )


def _unsupported(value: str, rule: str) -> FormatError:
    return FormatError(value, rule=rule, fix="This model cannot be exported to GGUF; use the model directory.")


ARCHITECTURE = "general.architecture"

_SIZES = {
    "dim": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "ffn_dim": "feed_forward_length",
    "context_length": "context_length",
}
_RMS_EPS, _LAYER_EPS = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
_LOCAL_BASE = "rope.freq_base_swa"
_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
# Metadata keys that no supported family uses -> the value with which a key has no effect. A model with another value is
# rejected, because its output would differ.
_VARIANTS: dict[str, MetaValue] = {
    "expert_count": 0,
    "attn_logit_softcapping": 0.0,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.scale": 0.0,
    "attention.causal": True,
    "attention.temperature_scale": 0.0,
    "logit_scale": 0.0,
    "residual_scale": 0.0,
    "embedding_scale": 0.0,
    "use_parallel_residual": False,
    "rope.dimension_sections": 0,
}


def agreed_length(config: ModelConfig) -> int:
    """Return the maximum sequence length for which llama.cpp and groundup compute the same logits.

    This is the context length, or the size of the sliding window if llama.cpp does not support it.
    """
    if config.sliding_window is None or _declared(config).windows:
        return config.context_length
    return min(config.sliding_window, config.context_length)


def config_from_metadata(
    metadata: Mapping[str, MetaValue], tensors: Mapping[str, tuple[int, ...]], rope_factors: Tensor | None
) -> ModelConfig:
    """Return the model config of a GGUF file.

    Args:
        metadata: metadata of the file.
        tensors: tensor name -> shape. The names show whether embeddings are tied and whether layers have biases.
        rope_factors: the tensor `rope_freqs.weight`; None if the file does not contain it.

    Returns:
        The model config.

    Raises:
        FormatError: the architecture is unknown, or its variant is unsupported.
        ConfigError: sizes are invalid.
    """
    keys = Keys(metadata, str(metadata.get(ARCHITECTURE)))
    family, declared = _family(keys)
    _check_constants(keys, declared)
    known = {key.name for key in declared.keys.values()} | {*declared.constants, declared.attention_scale}
    for key, harmless in _VARIANTS.items():
        found = keys.get(key)
        if key not in known and found is not None and (isinstance(found, np.ndarray) or found != harmless):
            raise keys.refused(key, f"not supported for {keys.architecture} models")
    values: dict[str, Any] = {field: keys.size(key) for field, key in _SIZES.items()}
    # Check the number of layers before the first loop over layers, because a loop over 2^32 layers would take an hour.
    if f"blk.{values['n_layers'] - 1}.attn_output.weight" not in tensors:
        raise keys.refused("block_count", "the file must contain the tensors of all layers")
    values["n_kv_heads"] = keys.size("attention.head_count_kv", values["n_heads"])
    values |= _head_dims(keys, values["dim"] // max(values["n_heads"], 1), "rotary_fraction" in family.optional)
    values["norm_eps"] = keys.number(_LAYER_EPS if family.norm == "layer" else _RMS_EPS)
    values["vocab_size"] = tensors[TOKEN_EMBEDDING][0] if TOKEN_EMBEDDING in tensors else keys.size("vocab_size")
    values["tie_embeddings"] = OUTPUT not in tensors
    if family.positions == "rotary":
        values["rope_theta"] = float(keys.number("rope.freq_base", 10_000.0))
        rotary_dim = keys.size("rope.dimension_count", values["head_dim"])
        values["rope_scaling"] = read_scaling(keys, rope_factors, values["rope_theta"], rotary_dim)
    values |= {field: _BIASES[field] in tensors for field in declared.biases}
    values |= {field: _read_optional(keys, key) for field, key in declared.keys.items()}
    values |= declared.implied(values["n_layers"], values["dim"], values["n_heads"])
    if declared.attention_scale and (scale := keys.number(declared.attention_scale, 0.0)):
        values["query_scalar"] = float(f"{scale**-2:.7g}")  # fp32 has 7 significant digits.
        if values["query_scalar"] == values["head_dim"]:
            values["query_scalar"] = None
    if "sliding_window" in family.optional:
        values |= _read_window(keys, family, declared, values["n_layers"])
    return ModelConfig(family=family.name, **values)


def write_config(config: ModelConfig) -> tuple[dict[str, MetaValue], Tensor | None, tuple[str, ...]]:
    """Convert a model config to GGUF.

    Returns:
        The metadata, the tensor `rope_freqs.weight` (None if it is not required), and notes for the user about
        differences between llama.cpp and groundup.

    Raises:
        FormatError: llama.cpp does not support this variant of the architecture.
    """
    _check_expressible(config)
    declared = _declared(config)
    architecture = declared.architecture
    keys: dict[str, MetaValue] = {key: getattr(config, field) for field, key in _SIZES.items()}
    keys["vocab_size"] = config.vocab_size
    keys["attention.head_count_kv"] = config.n_kv_heads
    keys[_LAYER_EPS if config.norm == "layer" else _RMS_EPS] = config.norm_eps
    factors: Tensor | None = None
    if config.rotary:
        keys |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
        keys |= {"rope.dimension_count": config.rotary_dim, "rope.freq_base": float(config.rope_theta)}
        scaling, factors = write_scaling(config)
        keys |= scaling
    notes: tuple[str, ...] = ()
    if config.sliding_window is None and declared.default_window:
        keys[_WINDOW] = config.context_length
    elif config.sliding_window is not None:
        keys |= _write_window(config, declared)
        if agreed_length(config) < config.context_length:
            notes = (
                f"llama.cpp does not support sliding windows for {architecture} models. In sequences of more than "
                f"{config.sliding_window:,} tokens, each token attends to all previous tokens.",
            )
    for field, key in declared.keys.items():
        value = key.neutral if getattr(config, field) is None else getattr(config, field)
        keys |= {} if not value else {key.name: float(value)}
    keys |= declared.constants
    if declared.attention_scale:
        keys[declared.attention_scale] = float(config.attention_scale)
    return (
        {ARCHITECTURE: architecture} | {f"{architecture}.{key}": value for key, value in keys.items()},
        factors,
        notes,
    )


def _declared(config: ModelConfig) -> Gguf:
    if config.declared.gguf is None:
        raise FormatError(
            f"the model has the family {config.family}",
            rule="llama.cpp does not support models of this family",
            fix="This model cannot be exported to GGUF; use the model directory.",
        )
    return config.declared.gguf


def _family(keys: Keys) -> tuple[Family, Gguf]:
    declared = [(family, family.gguf) for family in FAMILIES.values() if family.gguf is not None]
    found = [pair for pair in declared if pair[1].architecture == keys.architecture]
    if not found:
        known = sorted({gguf.architecture for _, gguf in declared})
        raise FormatError(
            f"{ARCHITECTURE} = {keys.architecture[:80]!r}",
            rule=f"the known architectures are {', '.join(known)}",
            fix=f"Choose a model with one of these architectures, or add the family; see {GUIDE}.",
        )
    # If several families have this architecture, a sliding window in the file decides between them.
    slides = bool(keys.size(_WINDOW, 0))
    return next((pair for pair in found if ("sliding_window" in pair[0].optional) == slides), found[0])


def _check_constants(keys: Keys, declared: Gguf) -> None:
    for key, value in declared.constants.items():
        if keys.get(key) != value:
            raise keys.refused(key, f"must be {value} for {keys.architecture} models")


def _read_optional(keys: Keys, key: Key) -> float | None:
    value = keys.number(key.name, key.missing or key.neutral or 0.0)
    return None if value in (0.0, key.neutral) else value


def _head_dims(keys: Keys, default: int, partial: bool) -> dict[str, Any]:
    """Return the fields `head_dim` and, if RoPE rotates only part of each head, `rotary_fraction`."""
    lengths = {key: keys.size(key, default) for key in ("attention.key_length", "attention.value_length")}
    head_dim = lengths["attention.key_length"]
    rotary_dim = keys.size("rope.dimension_count", head_dim)
    if not partial:
        lengths["rope.dimension_count"] = rotary_dim
    if len(set(lengths.values())) > 1:
        raise FormatError(
            ", ".join(f"{key} = {length}" for key, length in lengths.items()),
            rule="queries, keys and values must have the same head_dim, and RoPE must rotate all features of a head",
            fix="Choose a model without this variant.",
        )
    if not head_dim or rotary_dim == head_dim:
        return {"head_dim": head_dim}
    fraction = rotary_dim / head_dim
    if int(fraction * head_dim) < rotary_dim:
        fraction = math.nextafter(fraction, 1)
    return {"head_dim": head_dim, "rotary_fraction": fraction}


def _read_window(keys: Keys, family: Family, declared: Gguf, n_layers: int) -> dict[str, Any]:
    window = keys.size(_WINDOW, declared.default_window)
    if not window or (declared.default_window and window >= keys.size("context_length")):
        return {}
    fields: dict[str, Any] = {"sliding_window": window, "sliding_layers": None}
    pattern = keys.get(_PATTERN)
    if isinstance(pattern, np.ndarray):
        fields["sliding_layers"] = tuple(bool(each) for each in pattern[:n_layers])
    elif declared.window_pattern or pattern is not None:
        every = keys.size(_PATTERN, declared.window_pattern)
        fields["sliding_layers"] = tuple(_follow_pattern(every, n_layers))
    if "local_rope_theta" in family.optional:
        fields["local_rope_theta"] = float(keys.number(_LOCAL_BASE, 10_000.0))
    return fields


def _write_window(config: ModelConfig, declared: Gguf) -> dict[str, MetaValue]:
    assert config.sliding_window is not None
    keys: dict[str, MetaValue] = {_WINDOW: config.sliding_window}
    if "local_rope_theta" in config.declared.optional:
        keys[_LOCAL_BASE] = float(config.local_rope_theta or config.rope_theta)
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    if slides != _follow_pattern(declared.window_pattern, config.n_layers):
        keys[_PATTERN] = [int(each) for each in slides]
    return keys


def _follow_pattern(every: int, n_layers: int) -> list[bool]:
    """Return whether each layer has a sliding window.

    Every `every`-th layer has full attention. If `every` is 0, all layers have a sliding window.
    """
    return [every == 0 or layer % every < every - 1 for layer in range(n_layers)]


def _check_expressible(config: ModelConfig) -> None:
    declared = _declared(config)
    implied = declared.implied(config.n_layers, config.dim, config.n_heads)
    scalar, divisor = config.query_scalar or config.head_dim, implied.get("query_scalar") or config.head_dim
    different = list(declared.unsupported(config))
    if scalar != divisor and not declared.attention_scale:
        different.append((f"query_scalar = {scalar}", f"llama.cpp divides scores by sqrt({divisor}) in this model"))
    if config.rotary_layers != implied.get("rotary_layers"):
        different.append((f"rotary_layers = {config.rotary_layers}", "llama.cpp applies RoPE in other layers"))
    if declared.tied is not None and config.tie_embeddings != declared.tied:
        required = "tied" if declared.tied else "untied"
        different.append((f"tie_embeddings = {config.tie_embeddings}", f"llama.cpp requires {required} embeddings"))
    for field, key in declared.keys.items():
        if getattr(config, field) is None and key.missing:
            different.append((f"{field} is not set", f"llama.cpp then uses {key.missing}"))
    for field in _BIASES:
        if getattr(config, field) and field not in declared.biases:
            different.append((f"{field} = True", f"llama.cpp does not support it for {declared.architecture} models"))
    for value, rule in different:
        raise FormatError(value, rule=rule, fix="This model cannot be exported to GGUF; use the model directory.")
