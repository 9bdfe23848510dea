"""The definition of a model family: architecture options, names in Hugging Face and GGUF files, presets.

A family module has data and small functions. It imports neither torch nor `groundup.model.config`.
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
FULL, SLIDING = "full_attention", "sliding_attention"  # values of `layer_types` in Hugging Face's config.json


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A multimodal model that contains a model of the family. Only its text model is loaded.

    Attributes:
        model_type: `model_type` of the multimodal model in Hugging Face's config.json.
        prefixes: Prefix of the text model's tensor names -> prefix in a text-only model.
        skipped_prefixes: Prefixes of all other tensors, which are not loaded.
    """

    model_type: str
    prefixes: Mapping[str, str]
    skipped_prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HuggingFaceWindows:
    """The conversion of sliding windows from and to `config.json`.

    Attributes:
        read: Returns the fields `sliding_window` and `sliding_layers` from a config without them and the keys of
            `config.json`.
        write: Returns the keys of `config.json`.
    """

    read: Callable[[ModelConfig, Mapping[str, Any]], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """A family's names in Hugging Face's files.

    Attributes:
        model_type: `model_type` in `config.json`.
        architectures: Class name for each head.
        keys: Field of `ModelConfig` -> key in `config.json`.
        defaults: Defaults of keys in transformers.
        fixed: Keys for which groundup supports one setting only -> the accepted values. The first one is written.
        weights: Returns the decoder's weight table.
        base: Prefix of the decoder's tensors. Models saved without a head omit it.
        head: Name of the head's tensor if embeddings are not tied.
        dropouts: Dropout keys, ignored on reading and written as 0.
        rope_theta: Key of `rope_theta` in transformers 4.
        rotary_fraction: Key of `rotary_fraction` in transformers 4.
        rope_by_layer_type: Whether `rope_parameters` are nested by layer type, with a separate base for sliding layers.
        windows: Conversion of sliding windows; None: the family has no sliding windows.
        within: The multimodal model that contains the family, if any.
        read: Sets values that `keys` cannot describe, in place, from the values so far and the keys of `config.json`.
        write: Returns additional keys of `config.json`.
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
        """All keys of `config.json` that the family reads or ignores."""
        rotary = [key for key in (self.rope_theta, self.rotary_fraction) if key is not None]
        return {*self.keys.values(), *self.defaults, *self.fixed, *self.dropouts, *rotary}


@dataclass(frozen=True, slots=True)
class Key:
    """A GGUF metadata key of an optional field.

    Attributes:
        name: The key, without the architecture.
        missing: The default in llama.cpp.
        neutral: The value that means "not set"; None: every value is a setting.
    """

    name: str
    missing: float | None = None
    neutral: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Gguf:
    """A family's names in GGUF files, and its architecture in llama.cpp.

    Attributes:
        architecture: `general.architecture`. Families may share one; they then differ by their sliding windows.
        keys: Optional field of `ModelConfig` -> metadata key.
        constants: Metadata for which groundup supports one value only.
        attention_scale: Key of 1 / sqrt(query_scalar); None: llama.cpp derives it from the sizes (see `implied`).
        biases: Bias fields that llama.cpp supports. A file has them if it has their tensors.
        permuted: Whether rows of queries and keys are stored with RoPE pairs interleaved.
        fused_qkv: Whether the query, key and value projections are one tensor.
        fused_gate_up: Whether gate_proj and up_proj are one tensor.
        llama3_scaling: Whether llama.cpp reads `rope_freqs.weight`.
        windows: Whether llama.cpp supports sliding windows; otherwise each layer attends to all tokens.
        window_pattern: Default pattern: every n-th layer has full attention.
        tied: Whether llama.cpp requires tied (True) or untied (False) embeddings; None: it supports both.
        default_window: Default sliding window; 0: no window.
        implied: Returns fields that llama.cpp derives from (n_layers, dim, n_heads) instead of reading a key.
        unsupported: Yields (value, reason) for variants that llama.cpp computes differently.
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
    unsupported: Callable[[ModelConfig], Iterator[tuple[str, str]]] = lambda config: iter(())


@dataclass(frozen=True, slots=True)
class Published:
    """A preset: the config of a published model.

    Attributes:
        name: Name of the preset.
        shape: Fields of `ModelConfig` except `family`.
        source: The paper or model card.
        note: Differences from the published model, if any.
    """

    name: str
    shape: Mapping[str, Any]
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A model family. The defaults are Llama's architecture.

    Attributes:
        name: Value of `family` in settings.
        title: Published name.
        about: One-line description.
        huggingface: Names in Hugging Face's files.
        gguf: Names in GGUF files; None: llama.cpp does not support the architecture.
        presets: Published configs.
        optional: Optional fields of `ModelConfig` that this family supports.
        only: Optional field -> its only supported values.
        positions: RoPE ("rotary"), or learned positional embeddings ("learned").
        norm: LayerNorm with bias ("layer"), RMSNorm ("rms"), or RMSNorm with the factor 1 + weight ("rms_plus_one").
        block: Norms at the inputs of attention and MLP ("pre"), at inputs and outputs ("sandwich"), or at outputs
            ("post"); or attention and MLP in parallel, each with a norm at its input ("parallel").
        qk_norm: Normalization of queries and keys before RoPE: for each head, or over the whole projection.
        activation: Activation function of the MLP.
        gated: Whether the MLP is gated (three matrices instead of two).
        qkv_bias: Whether the query, key and value projections have biases.
        output_bias: Whether the output projection of attention has a bias.
        ffn_bias: Whether the linear layers of the MLP have biases.
        scaled_embeddings: Whether token embeddings are multiplied by sqrt(dim).
        multi_head_only: Whether n_kv_heads = n_heads and n_heads x head_dim = dim are required.
        tie_embeddings: Whether embeddings are tied by default in training from scratch.
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
    """Return a preset.

    Args:
        name: Name of the preset.
        source: The paper or model card.
        n_layers: Number of layers.
        dim: Hidden size.
        heads: Number of query heads, and of key and value heads.
        ffn_dim: FFN size.
        head_dim: Features per head. Default: dim / query heads.
        note: Differences from the published model.
        fields: Other fields of `ModelConfig`.
    """
    sizes = {"dim": dim, "n_layers": n_layers, "n_heads": heads[0], "n_kv_heads": heads[1], "ffn_dim": ffn_dim}
    return Published(name, fields | sizes | {"head_dim": head_dim or dim // heads[0]}, source, note)


def architectures(prefix: str, classifier: str | None = None) -> dict[Head, str]:
    """Return the class names of transformers for a prefix such as "Llama"."""
    return {"language": f"{prefix}ForCausalLM", "labels": f"{classifier or prefix}ForSequenceClassification"}


# Keys, defaults and weights of Llama, which most other families share.
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
    """Return the weight table of Llama, with the norms and biases of families derived from it."""
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
    """Return the operation that splits a fused QKV projection."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return Split((query, key, key))


def heads_fill_dim(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield why llama.cpp does not support a config, for architectures in which it computes head_dim from dim."""
    if config.n_heads * config.head_dim != config.dim:
        yield f"head_dim = {config.head_dim}", f"llama.cpp supports only dim / n_heads in {config.family} models"


def read_layer_types(config: ModelConfig, given: Mapping[str, Any], otherwise: Sequence[bool]) -> dict[str, Any]:
    """Return `sliding_window` and `sliding_layers` from `sliding_window` and `layer_types` of a `config.json`.

    Args:
        config: The config without windows.
        given: The keys of `config.json`.
        otherwise: Whether each layer has the sliding window if the key `layer_types` is missing.

    Raises:
        FormatError: `layer_types` is invalid or has unsupported types.
    """
    window, types = given["sliding_window"], given.get("layer_types")
    if window is None or not given.get("use_sliding_window", True):
        return {}
    slides = list(otherwise)
    if types is not None:
        if not isinstance(types, list) or len(types) != config.n_layers or not {*types} <= {FULL, SLIDING}:
            raise FormatError(
                f"layer_types = {types!r}"[:200],
                rule=f"it must be {FULL} or {SLIDING} for each of the {config.n_layers} layers",
                fix="Use a model without other layer types.",
            )
        slides = [each == SLIDING for each in types]
    if not any(slides):
        return {}
    return {"sliding_window": window, "sliding_layers": None if all(slides) else tuple(slides)}


def layer_types(config: ModelConfig) -> list[str]:
    """Return `layer_types` for Hugging Face's config.json."""
    return [SLIDING if config.slides(layer) else FULL for layer in range(config.n_layers)]


def every_nth_is_full(pattern: Any, n_layers: int) -> list[bool]:
    """Return whether each layer has the sliding window, if every `pattern`-th layer has full attention."""
    return [type(pattern) is int and pattern > 0 and (layer + 1) % pattern > 0 for layer in range(n_layers)]


def _read_from_layer_on(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    full = given["max_window_layers"]
    return read_layer_types(config, given, [type(full) is int and layer >= full for layer in range(config.n_layers)])


def _write_from_layer_on(config: ModelConfig) -> dict[str, Any]:
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    return {
        "sliding_window": config.sliding_window,
        "layer_types": layer_types(config),
        # Older releases of transformers support only the index of the first sliding layer.
        "use_sliding_window": any(slides),
        "max_window_layers": slides.index(True) if any(slides) else config.n_layers,
    }


# A sliding window in all layers (Mistral), or from a certain layer (Qwen).
ALL_LAYERS = HuggingFaceWindows(
    read=lambda config, given: {} if given["sliding_window"] is None else {"sliding_window": given["sliding_window"]},
    write=lambda config: {"sliding_window": config.sliding_window},
)
FROM_LAYER_ON = HuggingFaceWindows(_read_from_layer_on, _write_from_layer_on)
