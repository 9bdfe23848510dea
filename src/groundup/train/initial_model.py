"""The model that pretraining starts from: random weights in a shape, or the weights of a base model."""

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

WINDOW = 512  # default context length of training, in tokens


class ShapeConfig(Config):
    """The model. What is left out follows from the budget: 64 features a layer, heads of 64, SwiGLU 8/3 as wide."""

    preset: str | None = setting(None, help="a published shape, e.g. gpt2; the keys below change it")
    family: FamilyName | None = setting(None, help=f"default: the preset's, else {DEFAULT_FAMILY}")
    context_length: int | None = setting(None, help="tokens seen at once; default: the preset's, else 512", ge=2)
    dim: int | None = setting(None, help="width of the residual stream", gt=0)
    n_layers: int | None = setting(None, help="layers", gt=0)
    n_heads: int | None = setting(None, help="query heads", gt=0)
    n_kv_heads: int | None = setting(None, help="key and value heads; fewer than n_heads saves memory", gt=0)
    head_dim: int | None = setting(None, help="features of a head", gt=0)
    ffn_dim: int | None = setting(None, help="width inside the feed-forward layer", gt=0)
    rope_theta: float | None = setting(None, help="base of the rotary frequencies", gt=0)
    norm_eps: float | None = setting(None, help="added to the variance in norms", gt=0)
    tie_embeddings: bool | None = setting(None, help="one matrix to embed and to score tokens")


# What follows anew from a field that is changed, instead of staying as in the preset.
_FOLLOWS = {
    "dim": ("head_dim", "ffn_dim", "query_scalar"),
    "n_heads": ("head_dim", "n_kv_heads", "query_scalar"),
    "head_dim": ("query_scalar",),
}


def given_shape(config: ShapeConfig) -> dict[str, Any]:
    """The fields of the model that are not to be derived: the preset's, and over them those that were given.

    Raises:
        ConfigError: no such preset, or another family than the preset's.
    """
    given = config.model_dump(exclude_none=True, exclude={"preset"})
    if config.preset is None:
        return {"family": DEFAULT_FAMILY, "context_length": WINDOW} | given
    from groundup.model.presets import preset

    found = preset(config.preset)
    if config.family not in (None, found.config.family):
        raise ConfigError(
            f"shape.preset = {config.preset} and shape.family = {config.family}",
            rule=f"{found.name} is of the family {found.config.family}",
            fix="Leave one of the two out.",
        )
    fields = vars_of(found.config)
    for changed in given:
        for follower in _FOLLOWS.get(changed, ()):
            fields.pop(follower, None)
    for by_layer in ("sliding_layers", "rotary_layers"):
        if fields[by_layer] and "n_layers" in given:
            fields[by_layer] = tuple(islice(cycle(fields[by_layer]), given["n_layers"]))
    return fields | given


def require_one_shape(shape: ShapeConfig, model: Path | None, depth: int | None) -> None:
    """Refuse settings that decide the shape of a model twice.

    Raises:
        ConfigError: a base model with a shape, or a depth with either.
    """
    given = shape.model_dump(exclude_none=True, exclude={"context_length"})
    if model and given:
        name, value = next(iter(given.items()))
        raise ConfigError(
            f"model = {model} and shape.{name} = {value}",
            rule="a base model has its shape; only shape.context_length can be set",
            fix="Leave one of the two out.",
        )
    if depth and (fixed := "model" if model else "shape.preset" if shape.preset else ""):
        raise ConfigError(
            f"depth = {depth} and {fixed} = {model or shape.preset}",
            rule=f"{fixed} decides the number of layers",
            fix="Give minutes or tokens instead of depth.",
        )


@dataclass(frozen=True, slots=True)
class Base:
    """The model to go on from.

    Attributes:
        directory: where it lies.
        config: its shape, with as many rows as the vocabulary of the tokens needs.
        pieces: of each token that it does not know yet, the ids that it knows it by.
        stop_ids: the tokens that end what it writes.
    """

    directory: Path
    config: ModelConfig
    pieces: Mapping[int, tuple[int, ...]]
    stop_ids: tuple[int, ...]

    def load(self) -> Transformer:
        """Its weights in fp32, ready to be trained, new tokens and all."""
        from groundup.hub import load_model
        from groundup.model.vocabulary import with_vocabulary

        model = load_model(self.directory)
        if self.pieces:
            model = with_vocabulary(model, self.config.vocab_size, self.pieces)
        return model.requires_grad_(True)

    @property
    def sentence(self) -> str:
        """What it is, for people."""
        words = f", with {len(self.pieces):,} new tokens that begin as the mean of their pieces" if self.pieces else ""
        return f"Going on from {self.directory}{words}."

    def training_shape(self, context_length: int | None) -> dict[str, Any]:
        """Its shape, as fields that are not to be derived, for windows of `context_length` tokens.

        Raises:
            ConfigError: longer than the model can see.
        """
        most = self.config.context_length
        if context_length is not None and context_length > most:
            raise ConfigError(
                f"shape.context_length = {context_length}",
                rule=f"this model was built for a context of {most}",
                fix=f"Give {most} or less, or leave it out.",
            )
        window = replace(self.config, context_length=context_length or min(WINDOW, most))
        return vars_of(window)


@dataclass(frozen=True, slots=True)
class InitialModel:
    """What pretraining starts from.

    Attributes:
        base: The model to continue; None: random weights.
        vocab_size: Rows of its embeddings.
        shape: Fields of its `ModelConfig` that are decided, at least family and context length.
    """

    base: Base | None
    vocab_size: int
    shape: Mapping[str, Any]

    @classmethod
    def of(cls, shape: ShapeConfig, base: Base | None, vocab_size: int) -> Self:
        """Return the initial model of a run.

        Args:
            vocab_size: Of the tokens to train on.
        """
        if base is None:
            return cls(None, vocab_size, given_shape(shape))
        return cls(base, base.config.vocab_size, base.training_shape(shape.context_length))

    def build(self, config: ModelConfig, seed: int) -> Transformer:
        """Return the model, its weights in fp32.

        Args:
            config: The planned shape.
        """
        from groundup.model import Transformer, init_weights

        if self.base is not None:
            return self.base.load()
        model = Transformer(config)
        init_weights(model, seed)
        return model


def vars_of(config: ModelConfig) -> dict[str, Any]:
    """Return every field of a shape by its name, without the vocabulary size, which the tokens decide."""
    from dataclasses import fields

    return {field.name: getattr(config, field.name) for field in fields(config) if field.name != "vocab_size"}


def find_base(path: Path, words: Path) -> Base:
    """The model that `path`, a directory or a run, means, to be trained on tokens of the tokenizer in `words`.

    Raises:
        DataError: no model there.
        ConfigError: the tokens are not in its vocabulary, nor in an extension of that; or its files disagree.
    """
    from groundup.hub.directory import read_full_config
    from groundup.hub.resolve import resolve_model
    from groundup.tokenizer import Tokenizer, new_token_pieces
    from groundup.tokenizer.vocabulary import VOCAB_MULTIPLE

    directory = resolve_model(path)
    config = read_full_config(directory)
    known, tokenizer = Tokenizer.load(directory), Tokenizer.load(words)
    pieces = new_token_pieces(known, tokenizer)
    if known.vocab_size > config.vocab_size:
        raise ConfigError(
            f"{directory}: {config.vocab_size:,} rows of embeddings, and a tokenizer of {known.vocab_size:,} ids",
            rule="a model has a row for every token of its own tokenizer",
            fix="Its files do not belong together: import the model again.",
        )
    rows = config.vocab_size
    if tokenizer.vocab_size > rows:
        rows = -(-tokenizer.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return Base(directory, replace(config, vocab_size=rows), pieces, known.stop_ids)
