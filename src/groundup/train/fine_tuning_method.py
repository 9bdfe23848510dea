"""Choose between LoRA adapters and full fine-tuning, set the trainable parameters, and save the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count
from groundup.core.errors import ConfigError
from groundup.train.learning_rates import muon_for_adapters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from groundup.hub.loading import OpenedModel
    from groundup.model import ModelConfig, SequenceClassifier, Transformer
    from groundup.tokenizer import Tokenizer

Method = Literal["full", "lora", "merged"]

_SMALL = 30_000_000  # number of parameters below which full fine-tuning is the default


class LoraConfig(Config):
    """Settings of LoRA adapters (arXiv:2106.09685), used if `method` is `"lora"` or `"merged"`."""

    rank: int = setting(16, help="rank of the update matrices", ge=1)
    alpha: float = setting(32.0, help="LoRA alpha: the update is scaled by alpha / rank", gt=0)
    dropout: float = setting(0.0, help="dropout probability for the inputs of the adapters", ge=0, lt=1)
    target_modules: tuple[str, ...] = setting(
        (), help='names of the layers to adapt, such as "q_proj"; default: all linear layers in the blocks'
    )
    quantize: Literal["int8", "int4"] | None = setting(
        None, help="quantize the frozen weights during training (QLoRA): less memory, slightly lower accuracy"
    )


def default_method(shape: ModelConfig) -> Method:
    """Return the default method for a model: "merged" (LoRA) for large models, "full" for small ones.

    With thousands of examples, LoRA reaches the same quality as full fine-tuning, in less time and with half the
    memory. On 1,000 messages with 76 intents and 2 cores, SmolLM2-135M reaches a loss of 1.22 in 75 s with LoRA, and a
    loss of 1.52 in about 200 s with full fine-tuning. Full fine-tuning is slow for small batches, because the cost of
    Muon's matrix updates does not depend on the batch size.
    """
    from groundup.model.flops import parameter_count

    return "merged" if parameter_count(shape) >= _SMALL else "full"


def resolve_method(asked: Method | None, shape: ModelConfig, lora: LoraConfig, console: Console) -> Method:
    """Return the method that the user set, or the default method for the size of the model.

    Warn if `[lora]` is set with full fine-tuning; the settings in `[lora]` never change the method.
    """
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
    """Raise an error if the optimizer is Muon, no method is set, and the default method for the model is LoRA.

    A command calls this before it writes any files.

    Raises:
        ConfigError: The settings combine Muon with LoRA.
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
    """Set `requires_grad` for a fine-tuning method.

    With method "full", all weights are trained. With "lora" and "merged", LoRA adapters are added to the model, and
    only the adapters, the head of a classifier, and the embeddings of new tokens are trained.

    Args:
        model: Model to train. Adapters are added in place.
        method: Fine-tuning method.
        lora: Settings of the adapters.
        seed: Random seed that initializes the adapters.
        new_rows_from: Id of the first special token that was added to the vocabulary of a language model, or None if no
            tokens were added. The rows of the added tokens in the embeddings and the head are trained together with
            the adapters.

    Raises:
        ConfigError: A target module does not match any layer.
    """
    from groundup.model import SequenceClassifier
    from groundup.model.lora import LoRA, add_lora
    from groundup.model.new_rows import train_new_rows
    from groundup.model.quantization import quantize_frozen

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
    """Load a base model, and add the special tokens of the chat template to its vocabulary if they are missing.

    Args:
        path: Model or run directory.
        method: Fine-tuning method.
        console: Console to print to.

    Returns:
        The model, and the id of the first added token. The id is None if no token was added.

    Raises:
        ConfigError: The method is "lora", and special tokens have to be added to the model.
    """
    from groundup.hub.chat_tokens import add_chat_tokens
    from groundup.hub.loading import open_model

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
    """Write a fine-tuned language model, or only its adapters if the method is "lora".

    The caller saves the tokenizer.
    """
    from groundup.hub import save_model
    from groundup.model.lora import fuse_lora
    from groundup.model.new_rows import fuse_new_rows
    from groundup.model.quantization import dequantize

    if method == "lora":
        return _save_adapters(out, model, base, tokenizer, stop_ids=stop_ids)
    fuse_lora(model)
    dequantize(model)
    fuse_new_rows(model)
    return save_model(out, model, **tokenizer.text_ids, stop_ids=stop_ids)


def save_trained_classifier(
    method: Method, out: Path, model: SequenceClassifier, base: Path, tokenizer: Tokenizer, labels: Sequence[str]
) -> list[Path]:
    """Write a fine-tuned classifier, or only its adapters and head if the method is "lora"."""
    from groundup.hub import save_classifier
    from groundup.model.lora import fuse_lora
    from groundup.model.quantization import dequantize

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
    """Write adapters, a reference to the base model, and the special token ids."""
    from groundup.hub.adapted import save_adapted
    from groundup.hub.directory import SpecialTokenIds, save_generation_config

    files = save_adapted(out, model, base, labels=labels)
    return [*files, save_generation_config(out, SpecialTokenIds(**tokenizer.text_ids, stop_ids=stop_ids))]
