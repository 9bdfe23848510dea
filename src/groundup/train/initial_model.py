"""Initial model of pretraining: a model with random weights, or a base model whose pretraining continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from groundup.core.config import Config, setting
from groundup.core.errors import ConfigError
from groundup.model.families import DEFAULT_FAMILY, FamilyName

if TYPE_CHECKING:
    from groundup.model import ModelConfig, Transformer

WINDOW = 512  # default training context length, in tokens


class ShapeConfig(Config):
    """Architecture of a model.

    By default the hidden size is 64 times the number of layers, the head dimension is 64, and the FFN is a SwiGLU whose
    size is 8/3 of the hidden size.
    """

    preset: str | None = setting(None, help="published architecture, such as gpt2; the other keys override its values")
    family: FamilyName | None = setting(None, help=f"model family; default: family of the preset, or {DEFAULT_FAMILY}")
    context_length: int | None = setting(
        None, help="context length in tokens; default: value of the preset, or 512", ge=2
    )
    dim: int | None = setting(None, help="hidden size", gt=0)
    n_layers: int | None = setting(None, help="number of layers", gt=0)
    n_heads: int | None = setting(None, help="number of attention heads", gt=0)
    n_kv_heads: int | None = setting(None, help="number of KV heads, below n_heads for grouped-query attention", gt=0)
    head_dim: int | None = setting(None, help="dimension of an attention head", gt=0)
    ffn_dim: int | None = setting(None, help="FFN size (intermediate size)", gt=0)
    rope_theta: float | None = setting(None, help="base of the rotary position embeddings (RoPE)", gt=0)
    norm_eps: float | None = setting(None, help="epsilon of the normalization layers", gt=0)
    tie_embeddings: bool | None = setting(None, help="tie the weights of embeddings and output head")


# Maps a field of a preset to the fields that are derived again if the user overrides the first field.
_DERIVED_FROM = {
    "dim": ("head_dim", "ffn_dim", "query_scalar"),
    "n_heads": ("head_dim", "n_kv_heads", "query_scalar"),
    "head_dim": ("query_scalar",),
}


def given_shape(config: ShapeConfig) -> dict[str, Any]:
    """Return the model fields that the preset or the settings define. Settings override the preset.

    Raises:
        ConfigError: The preset does not exist, or it belongs to another family than `family` in the settings.
    """
    given = config.model_dump(exclude_none=True, exclude={"preset"})
    if config.preset is None:
        return {"family": DEFAULT_FAMILY, "context_length": WINDOW} | given
    from groundup.model.presets import preset

    found = preset(config.preset)
    if config.family not in (None, found.config.family):
        raise ConfigError(
            f"shape.preset = {config.preset} and shape.family = {config.family}",
            rule=f"{found.name} belongs to the family {found.config.family}",
            fix="Remove one of them.",
        )
    fields = config_fields(found.config)
    for changed in given:
        for derived in _DERIVED_FROM.get(changed, ()):
            fields.pop(derived, None)
    for by_layer in ("sliding_layers", "rotary_layers"):
        if fields[by_layer] and "n_layers" in given:
            fields[by_layer] = tuple(islice(cycle(fields[by_layer]), given["n_layers"]))
    return fields | given


def require_one_shape(shape: ShapeConfig, model: Path | None, depth: int | None) -> None:
    """Raise an error if several settings define the architecture.

    Args:
        shape: Architecture settings.
        model: Base model, or None.
        depth: Number of layers, or None.

    Raises:
        ConfigError: The settings contain both a base model and an architecture, or they contain a depth together with
            a base model or a preset.
    """
    given = shape.model_dump(exclude_none=True, exclude={"context_length"})
    if model and given:
        name, value = next(iter(given.items()))
        raise ConfigError(
            f"model = {model} and shape.{name} = {value}",
            rule="a base model has a fixed architecture; only shape.context_length can be set",
            fix="Remove one of them.",
        )
    if depth and (fixed := "model" if model else "shape.preset" if shape.preset else ""):
        raise ConfigError(
            f"depth = {depth} and {fixed} = {model or shape.preset}",
            rule=f"{fixed} defines the number of layers",
            fix="Set minutes or tokens instead of depth.",
        )


@dataclass(frozen=True, slots=True)
class Base:
    """Base model whose pretraining continues.

    Attributes:
        directory: Model directory.
        config: Architecture, with a vocabulary size that is large enough for the tokenizer of the training tokens.
        pieces: Maps the id of each new token to the ids of known tokens that spell the same text. The embedding of a
            new token is initialized to the mean of the embeddings of these known tokens.
        stop_ids: Ids of the tokens that end generation.
    """

    directory: Path
    config: ModelConfig
    pieces: Mapping[int, tuple[int, ...]]
    stop_ids: tuple[int, ...]

    def load(self) -> Transformer:
        """Load the model in fp32 with trainable weights, and resize its token embeddings if there are new tokens."""
        from groundup.hub import load_model
        from groundup.model.vocabulary import resize_token_embeddings

        model = load_model(self.directory)
        if self.pieces:
            model = resize_token_embeddings(model, self.config.vocab_size, self.pieces)
        return model.requires_grad_(True)

    @property
    def sentence(self) -> str:
        """Sentence that describes the base model, for the console."""
        added = f" with {len(self.pieces):,} new tokens, initialized to the mean of their pieces" if self.pieces else ""
        return f"Continuing pretraining of {self.directory}{added}."

    def training_shape(self, context_length: int | None) -> dict[str, Any]:
        """Return the architecture with the given training context length.

        Args:
            context_length: Number of tokens per training window (default: 512, or the context length of the model if
                the model has a shorter context).

        Returns:
            Fields of `ModelConfig` by name, without the vocabulary size.

        Raises:
            ConfigError: `context_length` exceeds the context length of the model.
        """
        longest = self.config.context_length
        if context_length is not None and context_length > longest:
            raise ConfigError(
                f"shape.context_length = {context_length} exceeds the model's context length, {longest}",
                fix=f"Set {longest} or less, or omit it.",
            )
        window = replace(self.config, context_length=context_length or min(WINDOW, longest))
        return config_fields(window)


@dataclass(frozen=True, slots=True)
class InitialModel:
    """Initial model of pretraining: a base model, or random weights.

    Attributes:
        base: Base model whose pretraining continues, or None for random weights.
        vocab_size: Vocabulary size of the model, i.e. the number of rows of the token embeddings.
        shape: Fields of `ModelConfig` that are given, which always include `family` and `context_length`; the planner
            derives all other fields.
        dropout: Dropout probability during training.
    """

    base: Base | None
    vocab_size: int
    shape: Mapping[str, Any]
    dropout: float = 0.0

    @classmethod
    def of(cls, shape: ShapeConfig, base: Base | None, vocab_size: int, dropout: float = 0.0) -> Self:
        """Return the initial model of a run.

        Args:
            shape: Architecture settings.
            base: Base model, or None for random weights.
            vocab_size: Vocabulary size of the training tokens.
            dropout: Dropout probability during training.
        """
        if base is None:
            return cls(None, vocab_size, given_shape(shape), dropout)
        return cls(base, base.config.vocab_size, base.training_shape(shape.context_length), dropout)

    def build(self, config: ModelConfig, seed: int) -> Transformer:
        """Return the model with fp32 weights.

        Args:
            config: Architecture of the plan, used only for random weights.
            seed: Random seed of the weights.
        """
        if self.base is None:
            return self.build_random(config, seed)
        model = self.base.load()
        model.set_dropout(self.dropout)
        return model

    def build_random(self, config: ModelConfig, seed: int) -> Transformer:
        """Return a model with random fp32 weights, also if there is a base model.

        Args:
            config: Architecture.
            seed: Random seed of the weights.
        """
        from groundup.model import Transformer, init_weights

        model = Transformer(config)
        init_weights(model, seed)
        model.set_dropout(self.dropout)
        return model


def config_fields(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a model config by name. The vocabulary size is omitted, because the tokenizer defines it."""
    from dataclasses import fields

    return {field.name: getattr(config, field.name) for field in fields(config) if field.name != "vocab_size"}


def find_base(path: Path, tokenizer_directory: Path) -> Base:
    """Return the base model in `path`, with a vocabulary size that covers the tokenizer of the training tokens.

    Args:
        path: Model or run directory.
        tokenizer_directory: Directory of the tokenizer that encoded the training tokens.

    Raises:
        DataError: The directory does not contain a model.
        ConfigError: The vocabulary of the training tokens does not contain the vocabulary of the model, or the
            tokenizer of the model has more tokens than the model has embedding rows.
    """
    from groundup.hub.directory import read_full_config
    from groundup.hub.resolve import resolve_model
    from groundup.tokenizer import Tokenizer, new_token_pieces
    from groundup.tokenizer.vocabulary import embedding_rows

    directory = resolve_model(path)
    config = read_full_config(directory)
    known, tokenizer = Tokenizer.load(directory), Tokenizer.load(tokenizer_directory)
    pieces = new_token_pieces(known, tokenizer)
    if known.vocab_size > config.vocab_size:
        raise ConfigError(
            f"{directory}: the model has {config.vocab_size:,} embedding rows, but its tokenizer has "
            f"{known.vocab_size:,} tokens",
            fix="Import the model again, because its files do not match.",
        )
    rows = embedding_rows(tokenizer.vocab_size, config.vocab_size)
    return Base(directory, replace(config, vocab_size=rows), pieces, known.stop_ids)
