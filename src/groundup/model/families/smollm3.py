"""SmolLM3 (Bakouch et al. 2025). Some layers do not use RoPE (NoPE; Yang et al. 2025, arXiv:2501.18795)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from groundup.model.families.base import (
    DEFAULTS,
    KEYS,
    SILU,
    Family,
    Gguf,
    HuggingFace,
    HuggingFaceWindows,
    architectures,
    every_nth_is_full,
    layer_types,
    llama_weights,
    published,
    read_layer_types,
)

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig

_INTERVAL = 4  # every fourth layer does not use RoPE
_CARD = "Bakouch et al. 2025, SmolLM3: smol, multilingual, long-context reasoner (blog post and model card)"


def _read(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    layers, n_layers = given["no_rope_layers"], values["n_layers"]
    if layers is None and type(n_layers) is int:
        layers = every_nth_is_full(given["no_rope_layer_interval"], min(n_layers, 10_000))
    rotates = tuple(bool(layer) for layer in layers or ())[:n_layers]
    values["rotary_layers"] = None if all(rotates) and len(rotates) == n_layers else rotates


def _read_windows(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    return read_layer_types(config, given, [not config.rotates(layer) for layer in range(config.n_layers)])


def _write_windows(config: ModelConfig) -> dict[str, Any]:
    window = config.sliding_window
    return {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": layer_types(config)}


SMOLLM3 = Family(
    name="smollm3",
    title="SmolLM3",
    about="llama with some layers without RoPE",
    optional=("rope_scaling", "attention_bias", "mlp_bias", "sliding_window", "sliding_layers", "rotary_layers"),
    huggingface=HuggingFace(
        model_type="smollm3",
        architectures=architectures("SmolLM3"),
        keys=KEYS | {"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
        defaults=DEFAULTS
        | {
            "max_position_embeddings": 32_768,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "rope_theta": 2_000_000.0,
            "no_rope_layers": None,
            "no_rope_layer_interval": _INTERVAL,
            "use_sliding_window": False,
            "sliding_window": None,
        },
        fixed=SILU,
        weights=llama_weights,
        windows=HuggingFaceWindows(_read_windows, _write_windows),
        read=_read,
        write=lambda config: {"no_rope_layers": [int(config.rotates(layer)) for layer in range(config.n_layers)]},
    ),
    gguf=Gguf(
        "smollm3",
        permuted=True,
        implied=lambda n_layers, dim, n_heads: {"rotary_layers": tuple(every_nth_is_full(_INTERVAL, n_layers))},
    ),
    presets=(
        published(
            "smollm3-3b",
            _CARD,
            36,
            2048,
            (16, 4),
            11_008,
            vocab_size=128_256,
            context_length=65_536,
            rope_theta=5_000_000.0,
            norm_eps=1e-6,
            tie_embeddings=True,
            rotary_layers=tuple(every_nth_is_full(_INTERVAL, 36)),
        ),
    ),
)
