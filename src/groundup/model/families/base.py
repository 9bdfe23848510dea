"""What a model family declares: architecture switches, names in Hugging Face's and llama.cpp's files, presets.

A family file holds data and small functions. It imports neither torch nor `groundup.model.config`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from groundup.core.errors import FormatError
from groundup.model.weight_map import EMBEDDING, HEAD, Split, Weight, same

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig

Activation = Literal["silu", "gelu", "gelu_tanh"]
BlockKind = Literal["pre", "sandwich", "post", "parallel"]
Head = Literal["language", "labels"]  # next-token head, or classification head
LAYER = "model.layers.{layer}."
QKV = tuple(f"{LAYER}self_attn.{part}_proj" for part in "qkv")
FULL, SLIDING = "full_attention", "sliding_attention"  # values of Hugging Face's `layer_types`


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A multimodal model that contains a model of the family. Only the text model is read.

    Attributes:
        model_type: Hugging Face's name of the multimodal model.
        prefixes: prefix of the text model's tensor names there -> prefix in a text-only model.
        skipped_prefixes: prefixes of all other tensors, which are not read.
    """

    model_type: str
    prefixes: Mapping[str, str]
    skipped_prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HuggingFaceWindows:
    """How `config.json` describes sliding windows.

    Attributes:
        read: returns the fields `sliding_window` and `sliding_layers` from a shape and the config's keys.
        write: returns the config's keys.
    """

    read: Callable[[ModelConfig, Mapping[str, Any]], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """A family's names in Hugging Face's files.

    Attributes:
        model_type: in `config.json`.
        architectures: class names by head.
        keys: field of `ModelConfig` -> key in `config.json`.
        defaults: values of keys that a config leaves out: those of transformers.
        fixed: keys with only one meaning that groundup computes, and all spellings of it; the first is written.
        weights: returns the decoder's weight table.
        base: prefix of the decoder's tensors; models saved without a head leave it out.
        head: name of the output matrix, if it is not tied.
        dropouts: keys of dropout, ignored on reading and written as 0.
        rope_theta: key of the rotary base in transformers 4.
        rotary_fraction: key of `rotary_fraction` in transformers 4.
        rope_by_layer_type: `rope_parameters` are nested by layer type, and sliding layers have their own base.
        windows: None: the family has no sliding windows.
        within: None: no multimodal model contains the family.
        read: sets values in place that `keys` cannot describe, from the values so far and the config's keys.
        write: returns additional keys.
    """

    model_type: str
    architectures: Mapping[Head, str]
    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, ...]]
    weights: Callable[[ModelConfig], tuple[Weight, ...]]
    base: str = "model."
    head: str = HEAD
    dropouts: Sequence[str] = ("attention_dropout",)
    rope_theta: str = "rope_theta"
    rotary_fraction: str | None = None
    rope_by_layer_type: bool = False
    windows: HuggingFaceWindows | None = None
    within: Wrapper | None = None
    read: Callable[[dict[str, Any], Mapping[str, Any]], None] | None = None
    write: Callable[[ModelConfig], dict[str, Any]] | None = None

    @property
    def known_keys(self) -> set[str]:
        """All keys that the family reads or ignores."""
        rotary = [key for key in (self.rope_theta, self.rotary_fraction) if key is not None]
        return {*self.keys.values(), *self.defaults, *self.fixed, *self.dropouts, *rotary}


@dataclass(frozen=True, slots=True)
class Key:
    """A metadata key for an optional field.

    Attributes:
        missing: what llama.cpp computes with if a file has no such key.
        neutral: the value that means "not set"; None: there is none.
    """

    name: str
    missing: float | None = None
    neutral: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Gguf:
    """A family's names in GGUF files, and what llama.cpp computes for them.

    Attributes:
        architecture: `general.architecture`. Families may share one; sliding windows tell them apart.
        keys: optional field of `ModelConfig` -> metadata key.
        constants: metadata with only one value that groundup computes.
        attention_scale: key of 1 / sqrt(query_scalar); None: llama.cpp knows it from sizes (see `implied`).
        biases: bias fields that llama.cpp supports; whether a file has them follows from its tensors.
        permuted: rows of queries and keys are stored with rotated pairs next to each other.
        fused_qkv: queries, keys and values are one tensor.
        fused_gate_up: so are the MLP's gate and up projections.
        llama3_scaling: llama.cpp reads `rope_freqs.weight`.
        windows: llama.cpp applies sliding windows; otherwise every layer attends to all tokens.
        window_pattern: without a pattern in the file, each layer with this multiple as number is not sliding.
        tied: whether llama.cpp requires tied or untied embeddings; None: neither.
        default_window: the window without a key in the file; 0: none.
        implied: returns fields that no key describes and llama.cpp knows from (n_layers, dim, n_heads).
        inexpressible: yields (value, reason) of variants that llama.cpp computes differently.
    """

    architecture: str
    keys: Mapping[str, Key] = field(default_factory=dict)
    constants: Mapping[str, bool] = field(default_factory=dict)
    attention_scale: str | None = None
    biases: tuple[str, ...] = ()
    permuted: bool = False
    fused_qkv: bool = False
    fused_gate_up: bool = False
    llama3_scaling: bool = False
    windows: bool = False
    window_pattern: int = 0
    tied: bool | None = None
    default_window: int = 0
    implied: Callable[[int, int, int], dict[str, Any]] = lambda n_layers, dim, n_heads: {}
    inexpressible: Callable[[ModelConfig], Iterator[tuple[str, str]]] = lambda config: iter(())


@dataclass(frozen=True, slots=True)
class Published:
    """A published shape.

    Attributes:
        shape: fields of `ModelConfig` except `family`.
        source: the paper or model card.
        note: differences from the published model.
    """

    name: str
    shape: Mapping[str, Any]
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A model family. Defaults are Llama's architecture.

    Attributes:
        name: value of `family` in settings.
        title: its published name.
        about: one line for people.
        gguf: None: llama.cpp has no such architecture.
        optional: fields of `ModelConfig` that this family may set.
        only: values that an optional field is restricted to.
        positions: rotation of queries and keys, or a learned embedding.
        norm: LayerNorm with bias; RMSNorm; or RMSNorm with factor 1 + weight.
        block: norms at the inputs of attention and MLP ("pre"), at inputs and outputs ("sandwich"), or at outputs
            ("post"); or attention and MLP read the same input, each through its norm ("parallel").
        qk_norm: queries and keys are normalized before they are rotated, by head or all heads together.
        gated: whether the MLP multiplies by a gate (three matrices instead of two).
        scaled_embeddings: token embeddings are multiplied by sqrt(dim).
        multi_head_only: n_kv_heads = n_heads, and n_heads x head_dim = dim.
        tie_embeddings: default for training from scratch.
    """

    name: str
    title: str
    about: str
    huggingface: HuggingFace
    gguf: Gguf | None
    presets: tuple[Published, ...] = ()
    optional: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    positions: Literal["rotary", "learned"] = "rotary"
    norm: Literal["layer", "rms", "rms_plus_one"] = "rms"
    block: BlockKind = "pre"
    qk_norm: Literal["head", "projection"] | None = None
    activation: Activation = "silu"
    gated: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    scaled_embeddings: bool = False
    multi_head_only: bool = False
    tie_embeddings: bool = False


def published(
    name: str,
    source: str,
    n_layers: int,
    dim: int,
    heads: tuple[int, int],
    ffn_dim: int,
    head_dim: int | None = None,
    *,
    note: str = "",
    **fields: Any,
) -> Published:
    """Return a row of a table of published shapes.

    Args:
        heads: of queries, and of keys and values.
        head_dim: default: dim / heads.
        fields: further fields of `ModelConfig`.
    """
    sizes = {"dim": dim, "n_layers": n_layers, "n_heads": heads[0], "n_kv_heads": heads[1], "ffn_dim": ffn_dim}
    return Published(name, fields | sizes | {"head_dim": head_dim or dim // heads[0]}, source, note)


def architectures(prefix: str, classifier: str | None = None) -> dict[Head, str]:
    """Return transformers' usual class names, e.g. of "Llama"."""
    return {"language": f"{prefix}ForCausalLM", "labels": f"{classifier or prefix}ForSequenceClassification"}


# Keys, defaults and weights of Llama, which most later families kept.
KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn_dim": "intermediate_size",
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "head_dim": None,
    "num_key_value_heads": None,
    "rope_theta": 10_000.0,
}
SILU = {"hidden_act": ("silu", "swish")}
GELU_TANH = ("gelu_pytorch_tanh", "gelu_new")


def llama_weights(config: ModelConfig) -> tuple[Weight, ...]:
    """Return the weight table of Llama, with what other families add to it."""
    parts = [
        *([] if config.block == "post" else ["input_layernorm.weight"]),
        *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
        *(f"self_attn.{part}_proj.bias" for part in "qkv" if config.qkv_bias),
        *(["self_attn.o_proj.bias"] if config.output_bias else []),
        *(["self_attn.q_norm.weight", "self_attn.k_norm.weight"] if config.qk_norm else []),
        "post_attention_layernorm.weight",
        *(["pre_feedforward_layernorm.weight"] if config.block == "sandwich" else []),
        *(["post_feedforward_layernorm.weight"] if config.block in ("sandwich", "post") else []),
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
        *(f"mlp.{part}_proj.bias" for part in ("gate", "up", "down") if config.ffn_bias),
    ]
    return same(EMBEDDING, "model.norm.weight", *(LAYER + part for part in parts))


def split_heads(config: ModelConfig) -> Split:
    """Return the operation for queries, keys and values one after the other in one tensor."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return Split((query, key, key))


def heads_fill_dim(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield why llama.cpp cannot compute a shape, where it derives head_dim from dim."""
    if config.n_heads * config.head_dim != config.dim:
        yield f"head_dim = {config.head_dim}", f"llama.cpp takes it for dim / n_heads in {config.family} models"


def read_layer_types(config: ModelConfig, given: Mapping[str, Any], otherwise: Sequence[bool]) -> dict[str, Any]:
    """Return the window fields from `sliding_window` and `layer_types`.

    Args:
        otherwise: of each layer whether it slides, if the config has no `layer_types`.

    Raises:
        FormatError: `layer_types` does not describe each layer.
    """
    window, types = given["sliding_window"], given.get("layer_types")
    if window is None or not given.get("use_sliding_window", True):
        return {}
    slides = list(otherwise)
    if types is not None:
        if not isinstance(types, list) or len(types) != config.n_layers or not {*types} <= {FULL, SLIDING}:
            raise FormatError(
                f"layer_types = {types!r}"[:200],
                rule=f"it says of each of the {config.n_layers} layers whether it is {FULL} or {SLIDING}",
                fix="Choose a model without other kinds of layers.",
            )
        slides = [each == SLIDING for each in types]
    if not any(slides):
        return {}
    return {"sliding_window": window, "sliding_layers": None if all(slides) else tuple(slides)}


def layer_types(config: ModelConfig) -> list[str]:
    """Return Hugging Face's `layer_types`."""
    return [SLIDING if config.slides(layer) else FULL for layer in range(config.n_layers)]


def every_nth_is_full(pattern: Any, n_layers: int) -> list[bool]:
    """Return of each layer whether it slides, if each layer with a multiple of `pattern` as number does not."""
    return [type(pattern) is int and pattern > 0 and (layer + 1) % pattern > 0 for layer in range(n_layers)]


def _read_from_layer_on(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    full = given["max_window_layers"]
    return read_layer_types(config, given, [type(full) is int and layer >= full for layer in range(config.n_layers)])


def _write_from_layer_on(config: ModelConfig) -> dict[str, Any]:
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    return {
        "sliding_window": config.sliding_window,
        "layer_types": layer_types(config),
        # Older releases of transformers know only the first sliding layer.
        "use_sliding_window": any(slides),
        "max_window_layers": slides.index(True) if any(slides) else config.n_layers,
    }


# One window for all layers (Mistral), or by layer (Qwen).
ALL_LAYERS = HuggingFaceWindows(
    read=lambda config, given: {} if given["sliding_window"] is None else {"sliding_window": given["sliding_window"]},
    write=lambda config: {"sliding_window": config.sliding_window},
)
FROM_LAYER_ON = HuggingFaceWindows(_read_from_layer_on, _write_from_layer_on)
