"""How each family looks in Hugging Face's files: names of the architecture, and the weight table, for both directions.

`config.json` is in `config_json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from groundup.model import Family, ModelConfig
from groundup.model.weight_map import EMBEDDING, HEAD, Operation, Split, Transpose, Weight, expand, same

Head = Literal["language", "labels"]  # what stands on the decoder: scores of the next token, or of a text's label
_LAYER = "model.layers.{layer}."
_QKV = tuple(f"{_LAYER}self_attn.{part}_proj" for part in "qkv")


@dataclass(frozen=True, slots=True)
class Layout:
    """A family on disk.

    Attributes:
        model_type: Hugging Face's name.
        architectures: theirs, by the head.
        base: what names below the heads begin with; models that were saved without a head leave it out.
        weights: the decoder's table.
        within: the model that also sees, of which this one is a part; its text is read, its eyes are left.
    """

    model_type: str
    architectures: Mapping[Head, str]
    base: str
    weights: Callable[[ModelConfig], tuple[Weight, ...]]
    within: Wrapper | None = None


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A multimodal model around a family's.

    Attributes:
        model_type: Hugging Face's name.
        prefixes: what the names of the part begin with there -> what they begin with alone.
        beside: what the names of all else begin with.
    """

    model_type: str
    prefixes: Mapping[str, str]
    beside: tuple[str, ...]


def weight_table(config: ModelConfig, head: Head = "language") -> Iterator[Weight]:
    """Each tensor of a model's files, and which of ours it holds. A tied head is not in it: it is the embedding."""
    table = LAYOUTS[config.family].weights(config)
    if head == "labels":
        table += same("score.weight")
    elif not config.tie_embeddings:
        table += same(HEAD)
    return expand(table, config.n_layers)


def _llama(config: ModelConfig) -> tuple[Weight, ...]:
    """Llama, and who took over its names: the rest, by what they add."""
    parts = [
        "input_layernorm.weight",
        *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
        *(f"self_attn.{part}_proj.bias" for part in "qkv" if config.qkv_bias),
        *(["self_attn.o_proj.bias"] if config.output_bias else []),
        *(["self_attn.q_norm.weight", "self_attn.k_norm.weight"] if config.qk_norm else []),
        "post_attention_layernorm.weight",
        *(["pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"] if config.sandwich_norms else []),
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
        *(f"mlp.{part}_proj.bias" for part in ("gate", "up", "down") if config.ffn_bias),
    ]
    return same(EMBEDDING, "model.norm.weight", *(_LAYER + part for part in parts))


def _gpt2(config: ModelConfig) -> tuple[Weight, ...]:
    theirs = "transformer.h.{layer}."
    fused = Split((config.dim,) * 3)

    def layer(their_part: str, our_part: str, *weight_operations: Operation) -> tuple[Weight, ...]:
        return (
            Weight(f"{theirs}{their_part}.weight", (f"{_LAYER}{our_part}.weight",), weight_operations),
            Weight(f"{theirs}{their_part}.bias", (f"{_LAYER}{our_part}.bias",)),
        )

    return (
        Weight("transformer.wte.weight", (EMBEDDING,)),
        Weight("transformer.wpe.weight", ("model.embed_positions.weight",)),
        *layer("ln_1", "input_layernorm"),
        Weight(f"{theirs}attn.c_attn.weight", tuple(f"{name}.weight" for name in _QKV), (Transpose(), fused)),
        Weight(f"{theirs}attn.c_attn.bias", tuple(f"{name}.bias" for name in _QKV), (fused,)),
        *layer("attn.c_proj", "self_attn.o_proj", Transpose()),
        *layer("ln_2", "post_attention_layernorm"),
        *layer("mlp.c_fc", "mlp.up_proj", Transpose()),
        *layer("mlp.c_proj", "mlp.down_proj", Transpose()),
        Weight("transformer.ln_f.weight", ("model.norm.weight",)),
        Weight("transformer.ln_f.bias", ("model.norm.bias",)),
    )


def _named(model_type: str, language: str, labels: str) -> Layout:
    return Layout(model_type, {"language": language, "labels": labels}, "model.", _llama)


LAYOUTS: dict[Family, Layout] = {
    "qwen3": _named("qwen3", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
    "qwen2": _named("qwen2", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification"),
    "llama": _named("llama", "LlamaForCausalLM", "LlamaForSequenceClassification"),
    "mistral": _named("mistral", "MistralForCausalLM", "MistralForSequenceClassification"),
    "gemma3": replace(
        _named("gemma3_text", "Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"),
        within=Wrapper(
            "gemma3",
            {
                "language_model.model.": "model.",
                "language_model.lm_head.": "lm_head.",
                "model.language_model.": "model.",
            },
            ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
        ),
    ),
    "gpt2": Layout(
        "gpt2",
        {"language": "GPT2LMHeadModel", "labels": "GPT2ForSequenceClassification"},
        "transformer.",
        _gpt2,
    ),
}
