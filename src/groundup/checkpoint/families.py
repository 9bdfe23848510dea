"""How each family looks in Hugging Face's `config.json` and `model.safetensors`: tables, used in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.errors import FormatError
from groundup.model import Family, ModelConfig

Head = Literal["language", "labels"]  # what stands on the decoder: scores of the next token, or of a text's label
_HEADS: dict[str, Head] = {"lm_head.weight": "language", "score.weight": "labels"}


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of theirs: which of ours it holds (several are fused along its last axis), and if it is transposed."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


def _same(*names: str) -> tuple[Weight, ...]:
    return tuple(Weight(name, (name,)) for name in names)


_QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")

_LLAMA_LAYER = _same(
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)
_LLAMA_OUTER = _same("model.embed_tokens.weight", "model.norm.weight", *_HEADS)

_GPT2_LAYER = (
    Weight("ln_1.weight", ("input_layernorm.weight",)),
    Weight("ln_1.bias", ("input_layernorm.bias",)),
    Weight("attn.c_attn.weight", tuple(f"{name}.weight" for name in _QKV), transposed=True),
    Weight("attn.c_attn.bias", tuple(f"{name}.bias" for name in _QKV)),
    Weight("attn.c_proj.weight", ("self_attn.o_proj.weight",), transposed=True),
    Weight("attn.c_proj.bias", ("self_attn.o_proj.bias",)),
    Weight("ln_2.weight", ("post_attention_layernorm.weight",)),
    Weight("ln_2.bias", ("post_attention_layernorm.bias",)),
    Weight("mlp.c_fc.weight", ("mlp.up_proj.weight",), transposed=True),
    Weight("mlp.c_fc.bias", ("mlp.up_proj.bias",)),
    Weight("mlp.c_proj.weight", ("mlp.down_proj.weight",), transposed=True),
    Weight("mlp.c_proj.bias", ("mlp.down_proj.bias",)),
)
_GPT2_OUTER = (
    Weight("transformer.wte.weight", ("model.embed_tokens.weight",)),
    Weight("transformer.wpe.weight", ("model.embed_positions.weight",)),
    Weight("transformer.ln_f.weight", ("model.norm.weight",)),
    Weight("transformer.ln_f.bias", ("model.norm.bias",)),
    *_same(*_HEADS),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """A family on disk.

    Attributes:
        model_type: Hugging Face's name.
        architectures: theirs, by the head.
        keys: our config field -> their key.
        constants: what else their config must say for the weights to mean the same.
        layer, outer: weight tables; layer names are below `prefix`.N on their side, `model.layers`.N on ours.
    """

    model_type: str
    architectures: Mapping[Head, str]
    keys: Mapping[str, str]
    constants: Mapping[str, Any]
    prefix: str
    layer: tuple[Weight, ...]
    outer: tuple[Weight, ...]


_LLAMA_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn_dim": "intermediate_size",
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
_LLAMA_CONSTANTS = {
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_scaling": None,
}

LAYOUTS: dict[Family, Layout] = {
    "qwen3": Layout(
        "qwen3",
        {"language": "Qwen3ForCausalLM", "labels": "Qwen3ForSequenceClassification"},
        _LLAMA_KEYS,
        _LLAMA_CONSTANTS | {"use_sliding_window": False},
        "model.layers",
        _LLAMA_LAYER + _same("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
        _LLAMA_OUTER,
    ),
    "llama": Layout(
        "llama",
        {"language": "LlamaForCausalLM", "labels": "LlamaForSequenceClassification"},
        _LLAMA_KEYS,
        _LLAMA_CONSTANTS | {"mlp_bias": False},
        "model.layers",
        _LLAMA_LAYER,
        _LLAMA_OUTER,
    ),
    "gpt2": Layout(
        "gpt2",
        {"language": "GPT2LMHeadModel", "labels": "GPT2ForSequenceClassification"},
        {
            "dim": "n_embd",
            "n_layers": "n_layer",
            "n_heads": "n_head",
            "ffn_dim": "n_inner",
            "vocab_size": "vocab_size",
            "context_length": "n_positions",
            "norm_eps": "layer_norm_epsilon",
            "tie_embeddings": "tie_word_embeddings",
        },
        {
            "activation_function": "gelu_new",
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
        },
        "transformer.h",
        _GPT2_LAYER,
        _GPT2_OUTER,
    ),
}

# What a config that leaves a key out means: transformers' defaults, of the families above.
_DEFAULTS: dict[Family, dict[str, Any]] = {
    "gpt2": {"n_inner": None, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
    "llama": {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "head_dim": None, "rope_theta": 10_000.0},
    "qwen3": {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "head_dim": 128, "rope_theta": 10_000.0},
}
# Constants whose other values are harmless: they matter in training only.
_TRAINING_ONLY = ("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop")


def to_their_config(config: ModelConfig, head: Head = "language") -> dict[str, Any]:
    """`config.json` for transformers 4 and 5 (which moved rope_theta into rope_parameters)."""
    layout = LAYOUTS[config.family]
    theirs = {their: getattr(config, our) for our, their in layout.keys.items()}
    if config.rotary:
        theirs["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "architectures": [layout.architectures[head]],
        "model_type": layout.model_type,
        **theirs,
        **layout.constants,
        "torch_dtype": "float32",
    }


def from_their_config(theirs: Mapping[str, Any]) -> ModelConfig:
    """Read their `config.json`.

    Raises:
        FormatError: an architecture that is not known, or a variant whose weights would mean something else.
    """
    family = next((f for f, layout in LAYOUTS.items() if layout.model_type == theirs.get("model_type")), None)
    if family is None:
        raise FormatError(
            f"model_type = {theirs.get('model_type')!r}",
            rule=f"the known architectures are {', '.join(layout.model_type for layout in LAYOUTS.values())}",
            fix="Choose a model of one of these families.",
        )
    layout = LAYOUTS[family]
    for key, expected in layout.constants.items():
        found = theirs.get(key, expected)
        if found != expected and key not in _TRAINING_ONLY and not (expected is False and not found):
            raise FormatError(
                f"{key} = {found!r}",
                rule=f"groundup reads {layout.model_type} models with {key} = {expected!r}",
                fix="Choose a model without this variant.",
            )
    given = dict(_DEFAULTS[family]) | dict(theirs)
    rope = theirs.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise FormatError(
            f"rope_type = {rope['rope_type']!r}", rule="only default rotary positions are read",
            fix="Choose a model without rotary scaling.",
        )  # fmt: skip
    if "rope_theta" in rope:
        given["rope_theta"] = rope["rope_theta"]
    values = {our: given[their] for our, their in layout.keys.items()}
    if family == "gpt2":
        values |= {"n_kv_heads": values["n_heads"], "head_dim": values["dim"] // values["n_heads"]}
        values["ffn_dim"] = values["ffn_dim"] or 4 * values["dim"]
    elif values["head_dim"] is None:
        values["head_dim"] = values["dim"] // values["n_heads"]
    return ModelConfig(family=family, **values)


def _table(config: ModelConfig, head: Head) -> list[Weight]:
    layout = LAYOUTS[config.family]
    table = [weight for weight in layout.outer if _HEADS.get(weight.theirs, head) == head]
    if config.tie_embeddings:
        table = [weight for weight in table if weight.theirs != "lm_head.weight"]
    for layer in range(config.n_layers):
        table += [
            Weight(
                f"{layout.prefix}.{layer}.{weight.theirs}",
                tuple(f"model.layers.{layer}.{our}" for our in weight.ours),
                weight.transposed,
            )
            for weight in layout.layer
        ]
    return table


def to_their_weights(config: ModelConfig, ours: Mapping[str, Tensor], head: Head = "language") -> dict[str, Tensor]:
    """Our state dict under their names and in their layout."""
    theirs = {}
    for weight in _table(config, head):
        parts = [ours[name].T if weight.transposed else ours[name] for name in weight.ours]
        theirs[weight.theirs] = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).contiguous()
    return theirs


def from_their_weights(config: ModelConfig, theirs: Mapping[str, Tensor], head: Head = "language") -> dict[str, Tensor]:
    """Their tensors under our names.

    Raises:
        FormatError: a tensor is missing, or one is left over (its meaning would be lost in silence).
    """
    ours: dict[str, Tensor] = {}
    left = {name: tensor for name, tensor in theirs.items() if not _is_derived(config, name)}
    for weight in _table(config, head):
        if weight.theirs not in left:
            raise FormatError(
                f"no tensor {weight.theirs!r}",
                rule=f"a {config.family} model of this shape has it",
                fix="The file is incomplete or of another architecture; get it again.",
            )
        tensor = left.pop(weight.theirs)
        parts = tensor.chunk(len(weight.ours), dim=-1)
        ours |= {
            name: part.T.contiguous() if weight.transposed else part
            for name, part in zip(weight.ours, parts, strict=True)
        }
    if left:
        raise FormatError(
            f"tensors {', '.join(sorted(left)[:5])}",
            rule=f"a {config.family} model of this shape does not have them",
            fix="The model is of a variant that groundup does not read.",
        )
    if config.tie_embeddings and head == "language":
        ours["lm_head.weight"] = ours["model.embed_tokens.weight"]
    return ours


def _is_derived(config: ModelConfig, name: str) -> bool:
    """Tensors that old files carry though the config already says them: causal masks, rotary tables, a tied head."""
    derived = re.search(r"\.(attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$", name) is not None
    return derived or (config.tie_embeddings and name == "lm_head.weight")
