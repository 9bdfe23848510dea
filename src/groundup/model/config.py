"""The model config, which contains the sizes and architecture options of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

from groundup.core.errors import ConfigError
from groundup.model.families import DEFAULT_FAMILY, FAMILIES
from groundup.model.families.base import Activation, BlockKind, Family

ScalingKind = Literal["linear", "llama3", "yarn"]
SCALINGS: tuple[ScalingKind, ...] = get_args(ScalingKind)

# This maximum is far above the number of layers of all known models. A larger number indicates a damaged or malicious
# file, and building such a model would take hours.
MAX_LAYERS = 10_000
MAX_SIZE = 2**28
MAX_HEAD_DIM = 2**16  # limits the memory for RoPE frequencies, which are allocated before weight shapes are checked

# Maximum sequence length for explicit attention. It is faster than PyTorch's kernel, but it saves the attention weights
# (T^2 / 2 per head), which take too much memory for longer sequences.
MAX_EXPLICIT_LENGTH = 1024
# Optional field -> families that support it. For all other families, a value is an error, because it would be ignored.
_OPTIONAL: dict[str, list[str]] = {}
for _family in FAMILIES.values():
    for _name in _family.optional:
        _OPTIONAL.setdefault(_name, []).append(_family.name)


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """RoPE scaling of a model whose context was extended after pretraining.

    Attributes:
        kind: Type of the scaling. "linear" divides all frequencies by `factor`. "llama3" divides low frequencies, keeps
            high frequencies, and interpolates the frequencies in between. "yarn" is described in arXiv:2309.00071.
        factor: Divisor of the frequencies.
        original_context_length: Context length during pretraining. It is required for "llama3" and "yarn".
        low_freq_factor: "llama3" divides frequencies with fewer rotations than this over the original context.
        high_freq_factor: "llama3" keeps frequencies with more rotations than this over the original context.
        beta_slow: "yarn" divides frequencies with fewer rotations than this over the original context.
        beta_fast: "yarn" keeps frequencies with more rotations than this over the original context.
        attention_factor: "yarn" multiplies cosines and sines by this factor. None means 0.1 ln(factor) + 1.
        truncate: Whether "yarn" rounds the first and the last interpolated feature pair to integers.
    """

    kind: ScalingKind
    factor: float
    original_context_length: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_slow: float = 1.0
    beta_fast: float = 32.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        if self.kind not in SCALINGS:
            raise ConfigError(
                f"rope_scaling.kind = {self.kind!r}",
                rule=f"the supported kinds of RoPE scaling are {', '.join(SCALINGS)}",
                fix="Use one of these kinds, or a model without RoPE scaling.",
            )
        _require_numbers("rope_scaling.", self)
        if self.kind != "linear" and self.original_context_length is None:
            raise ConfigError(
                "rope_scaling.original_context_length = None",
                rule=f"{self.kind} scaling requires the context length during pretraining",
                fix="Set original_context_length, e.g. 8192.",
            )
        if self.kind == "llama3" and not self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                f"low_freq_factor = {self.low_freq_factor}, high_freq_factor = {self.high_freq_factor}",
                rule="high_freq_factor must be greater than low_freq_factor",
                fix="Set e.g. low_freq_factor = 1 and high_freq_factor = 4.",
            )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The config of a model, with its family, sizes and options.

    Attributes:
        family: Name of the model family, which defines the architecture. See `groundup.model.families.FAMILIES`.
        dim: Hidden size.
        n_layers: Number of layers.
        n_heads: Number of query heads.
        n_kv_heads: Number of key and value heads. It is less than `n_heads` in grouped-query attention
            (arXiv:2305.13245).
        head_dim: Number of features per head.
        ffn_dim: FFN size (intermediate size of the MLP).
        vocab_size: Number of rows of the token embedding.
        context_length: Maximum sequence length in tokens.
        rope_theta: Base of the RoPE frequencies (arXiv:2104.09864). It is ignored with learned positional embeddings.
        norm_eps: Epsilon of the norms.
        tie_embeddings: Whether the output head and the token embedding share their weights.
        rope_scaling: RoPE scaling for a longer context. None means no scaling.
        local_rope_theta: Base of the RoPE frequencies in sliding-window layers. If None, these layers use `rope_theta`
            and `rope_scaling`; otherwise they do not use `rope_scaling`.
        sliding_window: Number of tokens that a token attends to in sliding-window layers, including itself. None means
            no sliding window.
        sliding_layers: One boolean per layer that is true if the layer has a sliding window. If None, all layers have
            it, provided that `sliding_window` is set.
        attention_bias: Whether the four projections of attention have biases, for families that support this option.
        mlp_bias: Whether the linear layers of the MLP have biases, for families that support this option.
        query_scalar: Attention scores are q k^T / sqrt(query_scalar). If None, `head_dim` is used.
        logit_softcap: Softcap of the logits: they become softcap x tanh(logits / softcap). None means no softcap.
        attention_softcap: Softcap of the attention scores. None means no softcap.
        rotary_fraction: Fraction of each head's features that RoPE rotates (partial rotary factor). None means all
            features.
        rotary_layers: One boolean per layer that is true if the layer applies RoPE. None means that all layers do.
        embedding_multiplier: Factor for token embeddings. None means 1.
        residual_multiplier: Factor for the output of attention and MLP before it is added to the residual stream. None
            means 1.
        logits_scaling: Divisor of the logits. None means 1.
    """

    family: str
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    context_length: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float | None = None
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    query_scalar: float | None = None
    logit_softcap: float | None = None
    attention_softcap: float | None = None
    rotary_fraction: float | None = None
    rotary_layers: tuple[bool, ...] | None = None
    embedding_multiplier: float | None = None
    residual_multiplier: float | None = None
    logits_scaling: float | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(
                f"family = {self.family!r}",
                rule=f"the supported families are {', '.join(FAMILIES)}",
                fix=f"Use one of these families. The default for training from scratch is {DEFAULT_FAMILY}.",
            )
        _require_numbers("", self)
        self._check_layers()
        self._check_heads()
        for name, families in _OPTIONAL.items():
            value = getattr(self, name)
            if value in (None, False):
                continue
            if self.family not in families:
                raise ConfigError(
                    f"{name} = {value}",
                    rule=f"{self.family} models do not support {name}; it is supported by {', '.join(families)}",
                    fix=f"Omit {name}, or use another family.",
                )
            values = self.declared.only.get(name)
            if values is not None and value not in values:
                allowed = " or ".join(map(str, values))
                raise ConfigError(
                    f"{name} = {value}",
                    rule=f"{self.declared.title} supports only {allowed}",
                    fix=f"Omit {name}, or set it to {allowed}.",
                )

    def _check_layers(self) -> None:
        if self.n_layers > MAX_LAYERS:
            raise ConfigError(
                f"n_layers = {self.n_layers}",
                rule=f"the maximum is {MAX_LAYERS} layers",
                fix="Use fewer layers. If the model was downloaded, download it again.",
            )
        if self.sliding_layers is not None and (
            self.sliding_window is None or len(self.sliding_layers) != self.n_layers
        ):
            raise ConfigError(
                f"sliding_layers has {len(self.sliding_layers)} values, sliding_window = {self.sliding_window}",
                rule=f"sliding_layers requires one value for each of the {self.n_layers} layers, and a sliding_window",
                fix="Set one value per layer and a sliding_window, or omit both.",
            )

        if self.rotary_layers is not None and len(self.rotary_layers) != self.n_layers:
            raise ConfigError(
                f"rotary_layers has {len(self.rotary_layers)} values",
                rule=f"rotary_layers requires one value for each of the {self.n_layers} layers",
                fix="Set one value per layer, or omit rotary_layers.",
            )

    def _check_heads(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"n_heads = {self.n_heads}, n_kv_heads = {self.n_kv_heads}",
                rule="n_heads must be a multiple of n_kv_heads",
                fix="Change n_heads or n_kv_heads.",
            )
        if self.head_dim > MAX_HEAD_DIM or self.n_heads * self.head_dim > MAX_SIZE:
            raise ConfigError(
                f"n_heads = {self.n_heads}, head_dim = {self.head_dim}",
                rule=f"the maximum head_dim is {MAX_HEAD_DIM}, and the maximum n_heads x head_dim is {MAX_SIZE}",
                fix="Use fewer or smaller heads. If the model was downloaded, download it again.",
            )
        if self.head_dim % 2 and self.rotary:
            raise ConfigError(
                f"head_dim = {self.head_dim}",
                rule="RoPE rotates pairs of features, so head_dim must be even",
                fix="Use an even head_dim, e.g. 64.",
            )
        if self.rotary_fraction is not None and (not 0 < self.rotary_dim <= self.head_dim or self.rotary_dim % 2):
            raise ConfigError(
                f"rotary_fraction = {self.rotary_fraction}, head_dim = {self.head_dim}",
                rule=f"RoPE rotates pairs of features, but {self.rotary_dim} of {self.head_dim} features is not even",
                fix="Set rotary_fraction to at most 1, so that rotary_fraction x head_dim is even.",
            )
        multi_head = self.n_kv_heads == self.n_heads and self.n_heads * self.head_dim == self.dim
        if self.declared.multi_head_only and not multi_head:
            raise ConfigError(
                f"n_heads = {self.n_heads}, n_kv_heads = {self.n_kv_heads}, head_dim = {self.head_dim}",
                rule=f"{self.declared.title} requires n_kv_heads = n_heads and n_heads x head_dim = dim = {self.dim}",
                fix="Change these sizes, or use another family.",
            )

    @property
    def declared(self) -> Family:
        """The definition of the model's family."""
        return FAMILIES[self.family]

    @property
    def rotary(self) -> bool:
        """Whether the model uses RoPE. If false, the model uses learned positional embeddings."""
        return self.declared.positions == "rotary"

    @property
    def rotary_dim(self) -> int:
        """Number of features per head that RoPE rotates."""
        return self.head_dim if self.rotary_fraction is None else int(self.head_dim * self.rotary_fraction)

    @property
    def norm(self) -> Literal["layer", "rms", "rms_plus_one"]:
        """Type of the norms: LayerNorm with bias, RMSNorm, or RMSNorm with the factor 1 + weight."""
        return self.declared.norm

    @property
    def block(self) -> BlockKind:
        """Type of the blocks: the positions of the norms, and whether attention and MLP are parallel.

        See `Family.block`.
        """
        return self.declared.block

    @property
    def qk_norm(self) -> Literal["head", "projection"] | None:
        """Normalization of queries and keys before RoPE: for each head separately, or over the whole projection."""
        return self.declared.qk_norm

    @property
    def activation(self) -> Activation:
        """Activation function of the MLP."""
        return self.declared.activation

    @property
    def gated(self) -> bool:
        """Whether the MLP is gated (three matrices instead of two)."""
        return self.declared.gated

    @property
    def qkv_bias(self) -> bool:
        """Whether the query, key and value projections have biases."""
        return self.declared.qkv_bias or self.attention_bias

    @property
    def output_bias(self) -> bool:
        """Whether the output projection of attention has a bias."""
        return self.declared.output_bias or self.attention_bias

    @property
    def ffn_bias(self) -> bool:
        """Whether the linear layers of the MLP have biases."""
        return self.declared.ffn_bias or self.mlp_bias

    @property
    def embedding_scale(self) -> float:
        """Factor by which token embeddings are multiplied."""
        return (math.sqrt(self.dim) if self.declared.scaled_embeddings else 1.0) * (self.embedding_multiplier or 1.0)

    @property
    def attention_scale(self) -> float:
        """Factor by which attention scores are multiplied, usually 1 / sqrt(head_dim)."""
        return (self.query_scalar or self.head_dim) ** -0.5

    def slides(self, layer: int) -> bool:
        """Return whether a layer uses sliding-window attention."""
        return self.sliding_window is not None and (self.sliding_layers is None or self.sliding_layers[layer])

    def rotates(self, layer: int) -> bool:
        """Return whether a layer applies RoPE."""
        return self.rotary_layers is None or self.rotary_layers[layer]

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON values.

        Optional fields that are not set are omitted, so that a new optional field does not change the digest of a plan.
        """
        values = asdict(self)
        values |= {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value not in (None, False)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ModelConfig:
        """Return the config for the JSON values that `to_json` returned.

        Raises:
            ConfigError: A key is unknown or missing, or a value is invalid.
        """
        scaling = record.get("rope_scaling")
        given = dict(record) | {"rope_scaling": None if scaling is None else _built(RopeScaling, scaling)}
        for name in ("sliding_layers", "rotary_layers"):
            if record.get(name) is not None:
                given[name] = tuple(bool(layer) for layer in record[name])
        return _built(cls, given)


def _built(kind: type[Any], record: Mapping[str, Any]) -> Any:
    known = {field.name: field.default is MISSING for field in fields(kind)}
    wrong = [name for name in record if name not in known]
    wrong += [name for name, needed in known.items() if needed and name not in record]
    if wrong:
        raise ConfigError(
            f"{kind.__name__} has the keys {', '.join(sorted(record))}",
            rule=f"the keys must be {', '.join(known)}",
            fix=f"Add or remove {', '.join(wrong)}.",
        )
    return kind(**record)


def _require_numbers(prefix: str, config: RopeScaling | ModelConfig) -> None:
    """Raise ConfigError if an integer field is not positive, or a float field is not positive and finite."""
    for field in fields(config):
        kind, value = str(field.type).removesuffix(" | None"), getattr(config, field.name)
        if kind not in ("int", "float", "bool") or (value is None and kind != str(field.type)):
            continue
        fits = {
            "int": type(value) is int and 0 < value <= MAX_SIZE,
            "float": type(value) in (int, float) and 0 < value < math.inf,
            "bool": type(value) is bool,
        }[kind]
        if not fits:
            expected = {
                "int": f"an integer from 1 to {MAX_SIZE}",
                "float": "a positive number",
                "bool": "true or false",
            }
            raise ConfigError(
                f"{prefix}{field.name} = {value!r}"[:200],
                rule=f"it must be {expected[kind]}",
                fix=f"Correct {prefix}{field.name}.",
            )
