"""The shape of a model, in the field's words."""

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

# Far beyond every model that there is; what is larger is a damaged or hostile file, and would be built for hours.
MOST_LAYERS = 10_000
LARGEST = 2**28
LARGEST_HEAD = 2**16  # its rotary frequencies are made with the model, before any weights are compared

# Beyond this many tokens the probabilities that explicit attention saves (T^2/2 a head) cost more memory than PyTorch's
# kernel costs time.
LONGEST_EXPLICIT = 1024
# Optional fields, and the families that may set them; elsewhere the value would be ignored in silence.
_OPTIONAL: dict[str, list[str]] = {}
for _family in FAMILIES.values():
    for _name in _family.optional:
        _OPTIONAL.setdefault(_name, []).append(_family.name)


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Rotary frequencies of a model whose context was extended after pretraining.

    Attributes:
        kind: "linear" (every frequency divided by `factor`), "llama3" (low frequencies divided, high ones kept, those
            between blended) or "yarn" (arXiv:2309.00071).
        original_context_length: that of pretraining; "llama3" and "yarn" need it.
        low_freq_factor, high_freq_factor: of "llama3": where the blend begins and ends, in turns over that context.
        beta_slow, beta_fast: the same of "yarn".
        attention_factor: of "yarn": cosines and sines are multiplied by it; None: 0.1 ln(factor) + 1.
        truncate: of "yarn": the blend begins and ends at whole features.
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
                rule=f"the known scalings of rotary positions are {', '.join(SCALINGS)}",
                fix="Choose one of them, or a model without rotary scaling.",
            )
        _require_numbers("rope_scaling.", self)
        if self.kind != "linear" and self.original_context_length is None:
            raise ConfigError(
                "rope_scaling.original_context_length = None",
                rule=f"{self.kind} scaling blends by the context that the model was pretrained with",
                fix="Give original_context_length, e.g. 8192.",
            )
        if self.kind == "llama3" and not self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                f"low_freq_factor = {self.low_freq_factor}, high_freq_factor = {self.high_freq_factor}",
                rule="the blend of llama3 scaling begins at the lower of the two",
                fix="Give high_freq_factor > low_freq_factor, e.g. 1 and 4.",
            )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A shape of one of the families.

    Attributes:
        family: a name in `groundup.model.families.FAMILIES`, which declare their architecture.
        dim: width of the residual stream.
        n_kv_heads: key and value heads; fewer than `n_heads` is grouped-query attention (arXiv:2305.13245).
        ffn_dim: width inside the feed-forward layer.
        context_length: most positions that a window may have.
        rope_theta: base of the rotary frequencies (arXiv:2104.09864); unused with learned positions.
        tie_embeddings: one matrix both embeds tokens and scores them.
        rope_scaling: how those frequencies were stretched for a longer context; None: they were not.
        local_rope_theta: base of the layers that see a window; None: `rope_theta`, with its scaling.
        sliding_window: most tokens, itself included, that a token sees in the layers that slide; None: none slides.
        sliding_layers: which layers slide, by their index; None: all, if there is a window.
        attention_bias: the four projections of attention have biases, where the family leaves that open.
        mlp_bias: so have those of the feed-forward layer.
        query_scalar: attention scores are q k^T / sqrt(query_scalar); None: head_dim.
        logit_softcap: logits are softcap x tanh(logits / softcap); None: as they are.
        attention_softcap: the same for attention scores.
        rotary_fraction: share of each head's features that is rotated, the first ones; None: all.
        rotary_layers: which layers rotate queries and keys, by index; None: all.
        embedding_multiplier, residual_multiplier: factors of token embeddings and of each branch's output; None: 1.
        logits_scaling: divisor of the logits; None: 1.
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
                rule=f"the families are {', '.join(FAMILIES)}",
                fix=f"Choose one of them; {DEFAULT_FAMILY} is the default for training from scratch.",
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
                    rule=f"{self.family} has no such thing; {', '.join(families)} may have it",
                    fix=f"Leave {name} out, or choose another family.",
                )
            values = self.declared.only.get(name)
            if values is not None and value not in values:
                allowed = " or ".join(map(str, values))
                raise ConfigError(
                    f"{name} = {value}",
                    rule=f"in {self.declared.title} it is {allowed}, or not given",
                    fix=f"Leave {name} out, or give {allowed}.",
                )

    def _check_layers(self) -> None:
        if self.n_layers > MOST_LAYERS:
            raise ConfigError(
                f"n_layers = {self.n_layers}",
                rule=f"a model has at most {MOST_LAYERS} layers",
                fix="Give fewer; of a file from elsewhere, get it again.",
            )
        if self.sliding_layers is not None and (
            self.sliding_window is None or len(self.sliding_layers) != self.n_layers
        ):
            raise ConfigError(
                f"sliding_layers for {len(self.sliding_layers)} layers, sliding_window = {self.sliding_window}",
                rule=f"it says of each of the {self.n_layers} layers whether it sees a window only",
                fix="Give one value a layer and a sliding_window, or leave both out.",
            )

        if self.rotary_layers is not None and len(self.rotary_layers) != self.n_layers:
            raise ConfigError(
                f"rotary_layers for {len(self.rotary_layers)} layers",
                rule=f"it has one value for each of the {self.n_layers} layers",
                fix="Give one value a layer, or leave it out.",
            )

    def _check_heads(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"n_heads = {self.n_heads}, n_kv_heads = {self.n_kv_heads}",
                rule="each key head serves the same number of query heads",
                fix="Choose n_kv_heads so that it divides n_heads.",
            )
        if self.head_dim > LARGEST_HEAD or self.n_heads * self.head_dim > LARGEST:
            raise ConfigError(
                f"n_heads = {self.n_heads}, head_dim = {self.head_dim}",
                rule=f"a head is at most {LARGEST_HEAD} wide, all of them {LARGEST}",
                fix="Give fewer or smaller heads; of a file from elsewhere, get it again.",
            )
        if self.head_dim % 2 and self.rotary:
            raise ConfigError(
                f"head_dim = {self.head_dim}",
                rule="rotary positions turn pairs of features",
                fix="Choose an even head_dim, e.g. 64.",
            )
        if self.rotary_fraction is not None and (not 0 < self.rotary_dim <= self.head_dim or self.rotary_dim % 2):
            raise ConfigError(
                f"rotary_fraction = {self.rotary_fraction}, head_dim = {self.head_dim}",
                rule=f"rotary positions turn pairs of features, here {self.rotary_dim} of {self.head_dim}",
                fix="Choose a fraction of at most 1 that gives an even number of features.",
            )
        multi_head = self.n_kv_heads == self.n_heads and self.n_heads * self.head_dim == self.dim
        if self.declared.multi_head_only and not multi_head:
            raise ConfigError(
                f"n_heads = {self.n_heads}, n_kv_heads = {self.n_kv_heads}, head_dim = {self.head_dim}",
                rule=f"{self.declared.title} has one key head a query head, and n_heads x head_dim = dim = {self.dim}",
                fix="Set n_kv_heads = n_heads and head_dim = dim / n_heads, or choose another family.",
            )

    @property
    def declared(self) -> Family:
        """The family's declaration."""
        return FAMILIES[self.family]

    @property
    def rotary(self) -> bool:
        """Whether positions enter as rotations of queries and keys (else as a learned embedding)."""
        return self.declared.positions == "rotary"

    @property
    def rotary_dim(self) -> int:
        """Features of a head that are rotated."""
        return self.head_dim if self.rotary_fraction is None else int(self.head_dim * self.rotary_fraction)

    @property
    def norm(self) -> Literal["layer", "rms", "rms_plus_one"]:
        """LayerNorm with bias; RMSNorm; or RMSNorm whose factor is 1 + weight."""
        return self.declared.norm

    @property
    def block(self) -> BlockKind:
        """Where the norms of a block are, and whether its branches are parallel."""
        return self.declared.block

    @property
    def qk_norm(self) -> Literal["head", "projection"] | None:
        """How queries and keys are normalized before they are rotated."""
        return self.declared.qk_norm

    @property
    def activation(self) -> Activation:
        """Activation of the MLP."""
        return self.declared.activation

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies by a gate (three matrices instead of two)."""
        return self.declared.gated

    @property
    def qkv_bias(self) -> bool:
        """Whether the projections to queries, keys and values have biases."""
        return self.declared.qkv_bias or self.attention_bias

    @property
    def output_bias(self) -> bool:
        """Whether the projection out of attention has a bias."""
        return self.declared.output_bias or self.attention_bias

    @property
    def ffn_bias(self) -> bool:
        """Whether the linear layers of the MLP have biases."""
        return self.declared.ffn_bias or self.mlp_bias

    @property
    def embedding_scale(self) -> float:
        """Factor of token embeddings."""
        return (math.sqrt(self.dim) if self.declared.scaled_embeddings else 1.0) * (self.embedding_multiplier or 1.0)

    @property
    def attention_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return (self.query_scalar or self.head_dim) ** -0.5

    def slides(self, layer: int) -> bool:
        """Whether a layer sees the last `sliding_window` tokens only."""
        return self.sliding_window is not None and (self.sliding_layers is None or self.sliding_layers[layer])

    def rotates(self, layer: int) -> bool:
        """Whether a layer rotates queries and keys."""
        return self.rotary_layers is None or self.rotary_layers[layer]

    def to_json(self) -> dict[str, Any]:
        """As JSON values. Variants that the model does not have are left out, so that the digest of a plan made
        before they were known stays the same."""
        values = asdict(self)
        values |= {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value not in (None, False)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ModelConfig:
        """From what `to_json` gave.

        Raises:
            ConfigError: a key that is not known or missing, or a value that cannot be.
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
            f"{kind.__name__} with {', '.join(sorted(record))}",
            rule=f"its keys are {', '.join(known)}",
            fix=f"Correct {', '.join(wrong)}.",
        )
    return kind(**record)


def _require_numbers(prefix: str, config: RopeScaling | ModelConfig) -> None:
    """Sizes are positive integers, other numbers positive and finite: also those that came from a file."""
    for field in fields(config):
        kind, value = str(field.type).removesuffix(" | None"), getattr(config, field.name)
        if kind not in ("int", "float", "bool") or (value is None and kind != str(field.type)):
            continue
        fits = {
            "int": type(value) is int and 0 < value <= LARGEST,
            "float": type(value) in (int, float) and 0 < value < math.inf,
            "bool": type(value) is bool,
        }[kind]
        if not fits:
            expected = {"int": f"an integer from 1 to {LARGEST}", "float": "a positive number", "bool": "true or false"}
            raise ConfigError(
                f"{prefix}{field.name} = {value!r}"[:200],
                rule=f"it is {expected[kind]}",
                fix=f"Give {prefix}{field.name} such a value.",
            )
