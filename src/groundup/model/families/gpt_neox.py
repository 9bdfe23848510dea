"""GPT-NeoX and Pythia (Black et al. 2022, arXiv:2204.06745; Biderman et al. 2023, arXiv:2304.01373)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from groundup.model.families.base import (
    LAYER,
    QKV,
    Family,
    Gguf,
    HuggingFace,
    Published,
    architectures,
    published,
)
from groundup.model.weight_map import EMBEDDING, SplitHeads, Weight, renamed

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig

_PREFIX = "gpt_neox.layers.{layer}."
_LINEAR = {
    "self_attn.o_proj": "attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}
_NORMS = ("input_layernorm", "post_attention_layernorm")


def _weights(config: ModelConfig) -> tuple[Weight, ...]:
    names = {LAYER + name: _PREFIX + file_name for name, file_name in _LINEAR.items()}
    names |= {LAYER + norm: _PREFIX + norm for norm in _NORMS} | {"model.norm": "gpt_neox.final_layer_norm"}
    fused = f"{_PREFIX}attention.query_key_value"
    return (
        *renamed({EMBEDDING: "gpt_neox.embed_in.weight"}),
        *(
            Weight(f"{fused}.{kind}", tuple(f"{name}.{kind}" for name in QKV), (SplitHeads(config.n_heads),))
            for kind in ("weight", "bias")
        ),
        *(
            weight
            for kind in ("weight", "bias")
            for weight in renamed({f"{name}.{kind}": f"{file_name}.{kind}" for name, file_name in names.items()})
        ),
    )


def _read(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    values["n_kv_heads"], values["head_dim"] = values["n_heads"], None


_PAPER = "Biderman et al. 2023, arXiv:2304.01373"


def _pythia(name: str, n_layers: int, dim: int, n_heads: int, vocab_size: int) -> Published:
    fields: dict[str, Any] = {"vocab_size": vocab_size, "context_length": 2048, "norm_eps": 1e-5}
    fields |= {"rotary_fraction": 0.25, "tie_embeddings": False}
    return published(name, _PAPER, n_layers, dim, (n_heads, n_heads), 4 * dim, **fields)


GPT_NEOX = Family(
    name="gpt_neox",
    title="GPT-NeoX",
    about="parallel attention and MLP, RoPE on a part of each head, LayerNorm, exact GELU, biases in all layers",
    norm="layer",
    block="parallel",
    activation="gelu",
    gated=False,
    qkv_bias=True,
    output_bias=True,
    ffn_bias=True,
    multi_head_only=True,
    optional=("rope_scaling", "rotary_fraction"),
    huggingface=HuggingFace(
        model_type="gpt_neox",
        architectures=architectures("GPTNeoX"),
        keys={
            "dim": "hidden_size",
            "n_layers": "num_hidden_layers",
            "n_heads": "num_attention_heads",
            "ffn_dim": "intermediate_size",
            "vocab_size": "vocab_size",
            "context_length": "max_position_embeddings",
            "norm_eps": "layer_norm_eps",
            "tie_embeddings": "tie_word_embeddings",
        },
        defaults={
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "rotary_emb_base": 10_000.0,
            "rotary_pct": 0.25,
        },
        fixed={"hidden_act": ("gelu",), "use_parallel_residual": (True,), "attention_bias": (True,)},
        weights=_weights,
        base="gpt_neox.",
        head="embed_out.weight",
        dropouts=("attention_dropout", "hidden_dropout"),
        rope_theta="rotary_emb_base",
        rotary_fraction="rotary_pct",
        read=_read,
    ),
    # llama.cpp uses GELU with the tanh approximation instead of exact GELU.
    gguf=Gguf("gptneox", constants={"use_parallel_residual": True}, fused_qkv=True),
    presets=(
        _pythia("pythia-70m", 6, 512, 8, 50_304),
        _pythia("pythia-160m", 12, 768, 12, 50_304),
        _pythia("pythia-410m", 24, 1024, 16, 50_304),
        _pythia("pythia-1b", 16, 2048, 8, 50_304),
        _pythia("pythia-1.4b", 24, 2048, 16, 50_304),
        _pythia("pythia-2.8b", 32, 2560, 32, 50_304),
        _pythia("pythia-6.9b", 32, 4096, 32, 50_432),
        _pythia("pythia-12b", 36, 5120, 40, 50_688),
    ),
)
