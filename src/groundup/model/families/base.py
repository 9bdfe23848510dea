"""Data classes that define a model family: architecture options, names in Hugging Face and GGUF files, and presets.

The module of a family contains only data and small functions. It imports neither torch nor `groundup.model.config`.
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
Head = Literal["language", "labels"]  # type of the output head: next-token head, or classification head
LAYER = "model.layers.{layer}."
QKV = tuple(f"{LAYER}self_attn.{part}_proj" for part in "qkv")
FULL, SLIDING = "full_attention", "sliding_attention"  # values of `layer_types` in Hugging Face's config.json


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A multimodal model whose language model belongs to the family. Only the language model is loaded.

    Attributes:
        model_type: `model_type` of the multimodal model in Hugging Face's config.json.
        prefixes: Prefix of tensor names in the multimodal model -> prefix in a model that contains only the language
            model.
        skipped_prefixes: Prefixes of tensors that do not belong to the language model and are not loaded.
    """

    model_type: str
    prefixes: Mapping[str, str]
    skipped_prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HuggingFaceWindows:
    """Functions that convert the fields of sliding windows from and to Hugging Face's `config.json`.

    Attributes:
        read: Function that returns the fields `sliding_window` and `sliding_layers` of `ModelConfig`. Its arguments are
            a config in which these fields are not set, and the content of `config.json`.
        write: Function that returns the keys of `config.json` that describe the sliding windows of a config.
    """

    read: Callable[[ModelConfig, Mapping[str, Any]], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """Names and formats of a family in Hugging Face's files.

    Attributes:
        model_type: `model_type` in `config.json`.
        architectures: Type of the output head -> class name in transformers.
        keys: Field of `ModelConfig` -> key in `config.json`.
        defaults: Key in `config.json` -> default value in transformers.
        fixed: Key in `config.json` -> values that groundup supports. Other values are rejected. The first value is
            written to new files.
        weights: Function that returns the weight table of the decoder.
        base: Prefix of the names of the decoder's tensors. Files of models without an output head omit the prefix.
        head: Name of the output head's tensor, if embeddings are not tied.
        dropouts: Keys of dropout probabilities. They are ignored when a config is read, and written as 0.
        rope_theta: Key of `rope_theta` in transformers 4.
        rotary_fraction: Key of `rotary_fraction` in transformers 4.
        rope_by_layer_type: Whether `rope_parameters` contains one object per layer type. Sliding-window layers may then
            have a different base.
        windows: Conversion of sliding windows. None means that models of the family do not have sliding windows.
        within: Multimodal model that may contain a model of the family, or None.
        read: Function that sets, in place, the values that `keys` cannot describe. Its arguments are the values that
            were read with `keys`, and the content of `config.json`.
        write: Function that returns additional keys of `config.json`.
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
        """All keys of `config.json` that are valid for the family."""
        rotary = [key for key in (self.rope_theta, self.rotary_fraction) if key is not None]
        return {*self.keys.values(), *self.defaults, *self.fixed, *self.dropouts, *rotary}


@dataclass(frozen=True, slots=True)
class Key:
    """GGUF metadata key of an optional field of `ModelConfig`.

    Attributes:
        name: The key without the prefix of the architecture.
        missing: Value that llama.cpp uses if the key is missing.
        neutral: Value that means that the field is not set. None means that every value sets the field.
    """

    name: str
    missing: float | None = None
    neutral: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Gguf:
    """Names of a family in GGUF files, and properties of its architecture in llama.cpp.

    Attributes:
        architecture: Value of `general.architecture`. If several families have the same value, a sliding window in the
            file decides between them.
        keys: Optional field of `ModelConfig` -> metadata key.
        constants: Metadata key -> the only value that groundup supports.
        attention_scale: Metadata key of 1 / sqrt(query_scalar). If None, llama.cpp derives this value from the sizes of
            the model; see `implied`.
        biases: Fields of `ModelConfig` for biases that llama.cpp supports. A field is true if the file contains the
            tensors of these biases.
        permuted: Whether the file stores the two features that RoPE rotates together in adjacent rows.
        fused_qkv: Whether one tensor contains the query, key and value projections.
        fused_gate_up: Whether one tensor contains gate_proj and up_proj.
        llama3_scaling: Whether llama.cpp reads `rope_freqs.weight`.
        windows: Whether llama.cpp supports sliding windows. If false, each token attends to all previous tokens.
        window_pattern: If the file does not specify which layers have a sliding window, every n-th layer has full
            attention, where n is this number.
        tied: Whether llama.cpp requires tied embeddings (True) or untied embeddings (False). None means that it
            supports both.
        default_window: Size of the sliding window if the file does not specify it; 0 means no sliding window.
        implied: Function of (n_layers, dim, n_heads) that returns the fields that llama.cpp derives from these sizes
            instead of reading a metadata key.
        unsupported: Function that yields (value, reason) for each option of a config that llama.cpp does not support.
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
    """A preset, which is the config of a published model.

    Attributes:
        name: Name of the preset.
        shape: Fields of `ModelConfig` except `family`.
        source: The paper or model card from which the config was taken.
        note: Differences between the preset and the published model; empty if there are no differences.
    """

    name: str
    shape: Mapping[str, Any]
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Definition of a model family. The default values of the options describe Llama's architecture.

    Attributes:
        name: Name of the family, which is the value of `family` in settings.
        title: Name of the published models, such as "Gemma 2".
        about: One-line description of the architecture.
        huggingface: Names and formats in Hugging Face's files.
        gguf: Names in GGUF files. None means that llama.cpp does not support the architecture.
        presets: Configs of published models.
        optional: Optional fields of `ModelConfig` that the family supports.
        only: Optional field of `ModelConfig` -> the values that the family supports.
        positions: Type of the positional embeddings: RoPE ("rotary") or learned embeddings ("learned").
        norm: Type of the norms: LayerNorm with bias ("layer"), RMSNorm ("rms"), or RMSNorm with the factor 1 + weight
            ("rms_plus_one").
        block: Type of the blocks. Norms are at the inputs of attention and MLP ("pre"), at their inputs and outputs
            ("sandwich"), or at their outputs ("post"). In "parallel" blocks, attention and MLP are computed in
            parallel, each with a norm at its input.
        qk_norm: Normalization of queries and keys before RoPE: for each head ("head"), or over the whole projection
            ("projection"). None means no normalization.
        activation: Activation function of the MLP.
        gated: Whether the MLP is gated (three matrices instead of two).
        qkv_bias: Whether the query, key and value projections have biases.
        output_bias: Whether the output projection of attention has a bias.
        ffn_bias: Whether the linear layers of the MLP have biases.
        scaled_embeddings: Whether token embeddings are multiplied by sqrt(dim).
        multi_head_only: Whether the family requires n_kv_heads = n_heads and n_heads x head_dim = dim.
        tie_embeddings: Whether embeddings are tied by default if a model is trained from scratch.
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
    """Create a preset.

    Args:
        name: Name of the preset.
        source: The paper or model card from which the config was taken.
        n_layers: Number of layers.
        dim: Hidden size.
        heads: Number of query heads, and number of key and value heads.
        ffn_dim: FFN size.
        head_dim: Number of features per head. Default: dim / number of query heads.
        note: Differences between the preset and the published model.
        fields: Other fields of `ModelConfig`.
    """
    sizes = {"dim": dim, "n_layers": n_layers, "n_heads": heads[0], "n_kv_heads": heads[1], "ffn_dim": ffn_dim}
    return Published(name, fields | sizes | {"head_dim": head_dim or dim // heads[0]}, source, note)


def architectures(prefix: str, classifier: str | None = None) -> dict[Head, str]:
    """Return type of the output head -> class name in transformers, for a class prefix such as "Llama"."""
    return {"language": f"{prefix}ForCausalLM", "labels": f"{classifier or prefix}ForSequenceClassification"}


# The config keys, default values and weight table of Llama. Most other families use them too.
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
    """Return the weight table of Llama and of families that add norms or biases to Llama."""
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
    """Yield (value, reason) if head_dim is not dim / n_heads, for architectures in which llama.cpp requires this."""
    if config.n_heads * config.head_dim != config.dim:
        yield f"head_dim = {config.head_dim}", f"llama.cpp supports only dim / n_heads in {config.family} models"


def read_layer_types(config: ModelConfig, given: Mapping[str, Any], otherwise: Sequence[bool]) -> dict[str, Any]:
    """Read the fields `sliding_window` and `sliding_layers` from a `config.json`.

    Args:
        config: The config, in which these fields are not set.
        given: The content of `config.json`, whose keys `sliding_window` and `layer_types` are read.
        otherwise: Whether each layer has a sliding window. This is used if the key `layer_types` is missing.

    Raises:
        FormatError: `layer_types` is invalid or contains an unsupported type.
    """
    window, types = given["sliding_window"], given.get("layer_types")
    if window is None or not given.get("use_sliding_window", True):
        return {}
    slides = list(otherwise)
    if types is not None:
        if not isinstance(types, list) or len(types) != config.n_layers or not {*types} <= {FULL, SLIDING}:
            raise FormatError(
                f"layer_types = {types!r}"[:200],
                rule=f"the type of each of the {config.n_layers} layers must be {FULL} or {SLIDING}",
                fix="Use a model without other layer types.",
            )
        slides = [each == SLIDING for each in types]
    if not any(slides):
        return {}
    return {"sliding_window": window, "sliding_layers": None if all(slides) else tuple(slides)}


def layer_types(config: ModelConfig) -> list[str]:
    """Return the value of `layer_types` in Hugging Face's config.json."""
    return [SLIDING if config.slides(layer) else FULL for layer in range(config.n_layers)]


def every_nth_is_full(pattern: Any, n_layers: int) -> list[bool]:
    """Return a list that is true for layers with a sliding window. Every `pattern`-th layer has full attention."""
    return [type(pattern) is int and pattern > 0 and (layer + 1) % pattern > 0 for layer in range(n_layers)]


def _read_from_layer_on(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    full = given["max_window_layers"]
    return read_layer_types(config, given, [type(full) is int and layer >= full for layer in range(config.n_layers)])


def _write_from_layer_on(config: ModelConfig) -> dict[str, Any]:
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    return {
        "sliding_window": config.sliding_window,
        "layer_types": layer_types(config),
        # Older releases of transformers only support the index of the first layer with a sliding window.
        "use_sliding_window": any(slides),
        "max_window_layers": slides.index(True) if any(slides) else config.n_layers,
    }


# Conversion for models with a sliding window in all layers (Mistral), or in all layers from a certain index (Qwen).
ALL_LAYERS = HuggingFaceWindows(
    read=lambda config, given: {} if given["sliding_window"] is None else {"sliding_window": given["sliding_window"]},
    write=lambda config: {"sliding_window": config.sliding_window},
)
FROM_LAYER_ON = HuggingFaceWindows(_read_from_layer_on, _write_from_layer_on)
