"""GPT-2 and GPT-3 (Radford et al. 2019; Brown et al. 2020, arXiv:2005.14165)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from groundup.model.families.base import LAYER, QKV, Family, Gguf, HuggingFace, Published, published
from groundup.model.weight_map import EMBEDDING, Operation, Split, Transpose, Weight

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig


def _weights(config: ModelConfig) -> tuple[Weight, ...]:
    prefix = "transformer.h.{layer}."
    fused = Split((config.dim,) * 3)

    def layer(file_part: str, part: str, *weight_operations: Operation) -> tuple[Weight, ...]:
        return (
            Weight(f"{prefix}{file_part}.weight", (f"{LAYER}{part}.weight",), weight_operations),
            Weight(f"{prefix}{file_part}.bias", (f"{LAYER}{part}.bias",)),
        )

    return (
        Weight("transformer.wte.weight", (EMBEDDING,)),
        Weight("transformer.wpe.weight", ("model.embed_positions.weight",)),
        *layer("ln_1", "input_layernorm"),
        Weight(f"{prefix}attn.c_attn.weight", tuple(f"{name}.weight" for name in QKV), (Transpose(), fused)),
        Weight(f"{prefix}attn.c_attn.bias", tuple(f"{name}.bias" for name in QKV), (fused,)),
        *layer("attn.c_proj", "self_attn.o_proj", Transpose()),
        *layer("ln_2", "post_attention_layernorm"),
        *layer("mlp.c_fc", "mlp.up_proj", Transpose()),
        *layer("mlp.c_proj", "mlp.down_proj", Transpose()),
        Weight("transformer.ln_f.weight", ("model.norm.weight",)),
        Weight("transformer.ln_f.bias", ("model.norm.bias",)),
    )


def _read(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    values["n_kv_heads"], values["head_dim"] = values["n_heads"], None
    values["ffn_dim"] = values["ffn_dim"] or 4 * values["dim"]
    if not given["scale_attn_weights"]:
        values["query_scalar"] = 1.0


_GPT2_PAPER = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners"
_GPT3_PAPER = "Brown et al. 2020, arXiv:2005.14165, table 2.1"
_SPARSE = "dense attention; the published model alternates dense and locally banded sparse attention"


def _gpt2(name: str, n_layers: int, dim: int, n_heads: int) -> Published:
    return _shape(name, _GPT2_PAPER, n_layers, dim, n_heads, 1024)


def _gpt3(name: str, n_layers: int, dim: int, n_heads: int, note: str = "") -> Published:
    return _shape(name, _GPT3_PAPER, n_layers, dim, n_heads, 2048, "; ".join(filter(None, (_SPARSE, note))))


def _shape(name: str, source: str, n_layers: int, dim: int, n_heads: int, context: int, note: str = "") -> Published:
    fields: dict[str, Any] = {"vocab_size": 50_257, "context_length": context, "norm_eps": 1e-5, "tie_embeddings": True}
    return published(name, source, n_layers, dim, (n_heads, n_heads), 4 * dim, note=note, **fields)


GPT2 = Family(
    name="gpt2",
    title="GPT-2",
    about="learned positional embeddings, LayerNorm, GELU, biases in all layers",
    positions="learned",
    norm="layer",
    activation="gelu_tanh",
    gated=False,
    qkv_bias=True,
    output_bias=True,
    ffn_bias=True,
    multi_head_only=True,
    tie_embeddings=True,
    optional=("query_scalar",),
    only={"query_scalar": (1,)},
    huggingface=HuggingFace(
        model_type="gpt2",
        architectures={"language": "GPT2LMHeadModel", "labels": "GPT2ForSequenceClassification"},
        keys={
            "dim": "n_embd",
            "n_layers": "n_layer",
            "n_heads": "n_head",
            "ffn_dim": "n_inner",
            "vocab_size": "vocab_size",
            "context_length": "n_positions",
            "norm_eps": "layer_norm_epsilon",
            "tie_embeddings": "tie_word_embeddings",
        },
        defaults={
            "n_inner": None,
            "n_positions": 1024,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
            "scale_attn_weights": True,
        },
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
        weights=_weights,
        base="transformer.",
        dropouts=("attn_pdrop", "embd_pdrop", "resid_pdrop"),
        read=_read,
        write=lambda config: {"scale_attn_weights": config.query_scalar is None},
    ),
    gguf=Gguf("gpt2", fused_qkv=True),
    presets=(
        _gpt2("gpt2", 12, 768, 12),
        _gpt2("gpt2-medium", 24, 1024, 16),
        _gpt2("gpt2-large", 36, 1280, 20),
        _gpt2("gpt2-xl", 48, 1600, 25),
        _gpt3("gpt3-125m", 12, 768, 12),
        _gpt3("gpt3-350m", 24, 1024, 16),
        _gpt3("gpt3-760m", 24, 1536, 16),
        _gpt3(
            "gpt3-1.3b",
            24,
            2048,
            16,
            "16 heads of 128; the paper's table has 24 heads, too many for dim 2,048",
        ),
        _gpt3("gpt3-2.7b", 32, 2560, 32),
        _gpt3("gpt3-6.7b", 32, 4096, 32),
        _gpt3("gpt3-13b", 40, 5120, 40, "dim 5,120, 40 heads of 128; the paper's table has dim 5,140"),
        _gpt3("gpt3-175b", 96, 12_288, 96),
    ),
)
