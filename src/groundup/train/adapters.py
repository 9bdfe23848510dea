"""LoRA adapters and full fine-tuning: what is trained, and how the result is saved."""

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

_SMALL = 30_000_000  # parameters; smaller models are trained in full by default


class LoraConfig(Config):
    """Low-rank adapters of frozen weights (LoRA, arXiv:2106.09685), for `method = "lora"` or `"merged"`."""

    renamed: ClassVar[Mapping[str, str]] = {
        "learning_rate": "learning_rate, outside of [lora]",
        "targets": "target_modules",
    }

    rank: int = setting(16, help="rank of the update matrices", ge=1)
    alpha: float = setting(32.0, help="LoRA alpha: the update is scaled by alpha / rank", gt=0)
    dropout: float = setting(0.0, help="dropout probability of the adapter inputs", ge=0, lt=1)
    target_modules: tuple[str, ...] = setting(
        (), help='names of the layers to adapt, e.g. "q_proj"; default: all linear layers in the blocks'
    )
    quantize: Literal["int8", "int4"] | None = setting(
        None, help="quantize the frozen weights during training (QLoRA): less memory, slightly lower accuracy"
    )


def default_method(shape: ModelConfig) -> Method:
    """Return the default method for a model: LoRA for large models, full fine-tuning for small ones.

    LoRA reaches the same quality on the usual number of examples in less time and half the memory. SmolLM2-135M on
    1,000 messages with 76 intents, 2 cores: LoRA reaches loss 1.22 in 75 s, full fine-tuning 1.52 in about 200 s. The
    cost of Muon's matrix updates does not shrink with the batch.
    """
    from groundup.model.flops import parameter_count

    return "merged" if parameter_count(shape) >= _SMALL else "full"


def resolve_method(asked: Method | None, shape: ModelConfig, lora: LoraConfig, console: Console) -> Method:
    """Return the given method, or the default one for the model's size. No other setting changes it."""
    from groundup.model.flops import parameter_count

    method = asked or default_method(shape)
    if asked is None and method == "merged":
        console.note(
            f"{format_count(parameter_count(shape))} parameters: training LoRA adapters and merging them. "
            "To train all weights, use --method full."
        )
    if method == "full" and lora != LoraConfig():
        console.warn(
            "The settings of [lora] have no effect with method = full. To train adapters, use --method merged."
        )
    return method


def require_full_for_muon(optimizer: str | None, method: Method | None, model: Path) -> None:
    """Reject Muon for a model that gets adapters by default, before anything is written.

    Raises:
        ConfigError: The model gets adapters by default.
    """
    from groundup.hub import read_config
    from groundup.hub.resolve import resolve_model

    if optimizer == "muon" and method is None:
        by_size = default_method(read_config(resolve_model(model)))
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
    """Set which parameters are trained: all weights, or new LoRA adapters and the head of a classifier.

    Args:
        model: Model to train; adapters are added to it.
        method: Fine-tuning method.
        lora: Settings of the adapters.
        seed: Random seed of the adapters.
        new_rows_from: First id of the special tokens that were added to a language model. Their rows in embeddings
            and head are trained with the adapters.

    Raises:
        ConfigError: No layer has the name of a target module.
    """
    from groundup.model import SequenceClassifier
    from groundup.model.lora import LoRA, add_lora
    from groundup.model.new_rows import train_new_rows
    from groundup.model.quantized import quantize_frozen

    if method == "full":
        model.requires_grad_(True)
        return
    add_lora(model, LoRA(lora.rank, lora.alpha, lora.target_modules, dropout=lora.dropout), seed=seed)
    if lora.quantize:
        quantize_frozen(model, 8 if lora.quantize == "int8" else 4)
    if isinstance(model, SequenceClassifier):
        model.score.requires_grad_(True)
    elif new_rows_from is not None:
        train_new_rows(model, new_rows_from)


def open_for_chat(path: Path, method: Method | None, console: Console) -> tuple[OpenedModel, int | None]:
    """Open a base model, and add the special tokens of chat templates to its vocabulary if they are missing.

    Args:
        path: Model or run directory.
        method: Fine-tuning method.
        console: Console to print to.

    Returns:
        The model, and the first id of the added tokens; None if no token was added.

    Raises:
        ConfigError: The method is lora and the model needs new tokens.
    """
    from groundup.hub.chat_tokens import add_chat_tokens
    from groundup.hub.resolve import open_model

    opened = add_chat_tokens(given := open_model(path, device="cpu"))
    if opened is given:
        return opened, None
    if method == "lora":
        raise ConfigError(
            f"method = lora with {opened.directory}, whose vocabulary lacks the special tokens of chat templates",
            rule="adapters are saved without the base model, whose embeddings lack the new tokens",
            fix="Use method = merged, which also trains adapters but writes a full model.",
        )
    console.note(f"{opened.directory} has no chat tokens: adding the special tokens, with new embeddings.")
    return opened, given.tokenizer.vocab_size


def save_language_model(
    method: Method, out: Path, model: Transformer, base: Path, tokenizer: Tokenizer, stop_ids: Sequence[int]
) -> list[Path]:
    """Write a fine-tuned language model or its adapters; the tokenizer writes its own files."""
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


def save_trained_classifier(
    method: Method, out: Path, model: SequenceClassifier, base: Path, tokenizer: Tokenizer, labels: Sequence[str]
) -> list[Path]:
    """Write a fine-tuned classifier, or its adapters and head."""
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
    """Write adapters, the reference to their base model, and the special token ids."""
    from groundup.hub.adapted import save_adapted
    from groundup.hub.directory import SpecialTokenIds, save_generation_config

    files = save_adapted(out, model, base, labels=labels)
    return [*files, save_generation_config(out, SpecialTokenIds(**tokenizer.text_ids, stop_ids=stop_ids))]
