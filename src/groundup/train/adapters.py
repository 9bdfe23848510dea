"""What the stages that tune have in common where adapters are trained in the model's place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count
from groundup.core.errors import ConfigError
from groundup.train.learning_rates import muon_for_adapters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from groundup.hub.resolve import OpenedModel
    from groundup.model import ModelConfig, SequenceClassifier, Transformer
    from groundup.tokenizer import Tokenizer

Method = Literal["full", "lora", "merged"]

_SMALL = 30_000_000  # parameters, below which all of them are trained where nobody says how


class LoraConfig(Config):
    """Low-rank adapters beside frozen matrices (arXiv:2106.09685), with `method = "lora"` or `"merged"`."""

    renamed: ClassVar[Mapping[str, str]] = {"learning_rate": "learning_rate, outside of [lora]"}

    rank: int = setting(16, help="of the product that is learned beside each matrix", ge=1)
    alpha: float = setting(32.0, help="the product is scaled by alpha / rank", gt=0)
    dropout: float = setting(0.0, help="share of an adapter's inputs that are left out in training", ge=0, lt=1)
    targets: tuple[str, ...] = setting((), help='layers to adapt, as "q_proj"; default: all linear ones in the blocks')
    quantize: Literal["int8", "int4"] | None = setting(
        None, help="Quantize the frozen layers while adapters are trained (QLoRA): less memory, some accuracy lost"
    )


def usual_method(shape: ModelConfig) -> Method:
    """Return the default method for a model of this size: adapters for a large one, all weights of a small one.

    Adapters learn as much from the examples that people have, in less time and half the memory; merged, they make a
    model like any other. (SmolLM2-135M, 1,000 messages of 76 intents, 2 cores: loss 1.22 in 75 s, against 1.52 in some
    200 s. Muon's work on whole matrices does not shrink with the batch.)
    """
    from groundup.model.flops import parameter_count

    return "merged" if parameter_count(shape) >= _SMALL else "full"


def settle_method(asked: Method | None, shape: ModelConfig, lora: LoraConfig, console: Console) -> Method:
    """Return the method that was asked for, or the default one. No other setting changes it."""
    from groundup.model.flops import parameter_count

    method = asked or usual_method(shape)
    if asked is None and method == "merged":
        told = "LoRA adapters are trained and merged; --method full trains all weights"
        console.note(f"{format_count(parameter_count(shape))} parameters: {told}.")
    if method == "full" and lora != LoraConfig():
        console.warn("The settings of [lora] have no effect with method = full. To train adapters: --method merged")
    return method


def require_full_for_muon(optimizer: str | None, method: Method | None, model: Path) -> None:
    """Refuse Muon for adapters that were chosen by the model's size, before anything is written.

    Raises:
        ConfigError: the model gets adapters by default.
    """
    from groundup.hub import read_config
    from groundup.hub.resolve import resolve_model

    if optimizer == "muon" and method is None:
        by_size = usual_method(read_config(resolve_model(model)))
        if by_size != "full":
            raise muon_for_adapters(by_size)


def make_trainable(
    model: Transformer | SequenceClassifier,
    method: Method,
    lora: LoraConfig,
    seed: int,
    *,
    new_rows_from: int | None = None,
) -> None:
    """Say what is trained: all of a model, or adapters that are put into it, with the head of a classifier.

    Args:
        new_rows_from: the first id of the tokens that a language model has just been given; their rows in embeddings
            and head are trained beside the adapters.

    Raises:
        ConfigError: a target that no layer has.
    """
    from groundup.model import SequenceClassifier
    from groundup.model.lora import LoRA, add_lora
    from groundup.model.new_rows import train_new_rows
    from groundup.model.quantized import quantize_frozen

    if method == "full":
        model.requires_grad_(True)
        return
    add_lora(model, LoRA(lora.rank, lora.alpha, lora.targets, dropout=lora.dropout), seed=seed)
    if lora.quantize:
        quantize_frozen(model, 8 if lora.quantize == "int8" else 4)
    if isinstance(model, SequenceClassifier):
        model.score.requires_grad_(True)
    elif new_rows_from is not None:
        train_new_rows(model, new_rows_from)


def open_for_chat(path: Path, method: Method | None, console: Console) -> tuple[OpenedModel, int | None]:
    """Open a base model, with the special tokens of chat templates in its vocabulary.

    Returns:
        The model, and the first id of the tokens that were added; None if it has them.

    Raises:
        ConfigError: method = lora with a model that needs new tokens.
    """
    from groundup.hub.grown import ready_to_chat
    from groundup.hub.resolve import open_model

    opened = ready_to_chat(given := open_model(path, device="cpu"))
    if opened is given:
        return opened, None
    if method == "lora":
        raise ConfigError(
            f"method = lora with {opened.directory}, which has no special tokens for the turns of a chat",
            rule="adapters are saved without the base, which has no embeddings for new tokens",
            fix="Use method = merged, which also trains adapters and writes a whole model.",
        )
    console.note(f"{opened.directory} has no special tokens for the turns of a chat: they are added, with embeddings.")
    return opened, given.tokenizer.vocab_size


def save_tuned(
    method: Method, out: Path, model: Transformer, base: Path, tokenizer: Tokenizer, stop_ids: Sequence[int]
) -> list[Path]:
    """Leave a tuned language model, or its adapters; the tokenizer writes its own files beside them."""
    from groundup.hub import save_model
    from groundup.model.lora import fuse_lora
    from groundup.model.new_rows import fuse_new_rows
    from groundup.model.quantized import dequantize

    if method == "lora":
        return _save_adapters(out, model, base, tokenizer, stop_ids=stop_ids)
    fuse_lora(model)
    dequantize(model)
    fuse_new_rows(model)
    return save_model(out, model, **tokenizer.text_ids, stop_ids=stop_ids)


def save_labelling(
    method: Method, out: Path, model: SequenceClassifier, base: Path, tokenizer: Tokenizer, labels: Sequence[str]
) -> list[Path]:
    """Leave a tuned classifier, or its adapters and head, like `save_tuned`."""
    from groundup.hub import save_classifier
    from groundup.model.lora import fuse_lora
    from groundup.model.quantized import dequantize

    if method == "lora":
        return _save_adapters(out, model, base, tokenizer, labels=labels)
    fuse_lora(model)
    dequantize(model)
    return save_classifier(out, model, labels, **tokenizer.text_ids)


def _save_adapters(
    out: Path,
    model: Transformer | SequenceClassifier,
    base: Path,
    tokenizer: Tokenizer,
    *,
    stop_ids: Sequence[int] = (),
    labels: Sequence[str] = (),
) -> list[Path]:
    """Leave the adapters of a tuned model, what they belong to, and the ids that begin and end its texts."""
    from groundup.hub.adapted import save_adapted
    from groundup.hub.directory import SpecialTokenIds, save_generation_config

    files = save_adapted(out, model, base, labels=labels)
    return [*files, save_generation_config(out, SpecialTokenIds(**tokenizer.text_ids, stop_ids=stop_ids))]
