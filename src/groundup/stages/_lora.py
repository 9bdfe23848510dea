"""What the stages that tune have in common where adapters are trained in the model's place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from groundup.config import Config, setting
from groundup.console import Console, format_count
from groundup.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from groundup.model import SequenceClassifier, Transformer
    from groundup.tokenizer import Tokenizer

Method = Literal["full", "lora", "merged"]

_SMALL = 30_000_000  # parameters, below which all of them are trained where nobody says how


class LoraConfig(Config):
    """Low-rank adapters beside frozen matrices (arXiv:2106.09685), with `method = "lora"` or `"merged"`."""

    rank: int = setting(16, help="of the product that is learned beside each matrix", ge=1)
    alpha: float = setting(32.0, help="the product is scaled by alpha / rank", gt=0)
    dropout: float = setting(0.0, help="share of an adapter's inputs that are left out in training", ge=0, lt=1)
    targets: tuple[str, ...] = setting((), help='layers to adapt, as "q_proj"; default: all linear ones in the blocks')
    learning_rate: float | None = setting(None, help="AdamW's; default: 10 times full tuning's", gt=0)


def settle_method(asked: Method | None, model: Transformer, *, needs_all: bool, console: Console) -> Method:
    """The method that was asked for; else adapters for a large model, and all weights of a small one.

    Adapters beside a large model learn as much from the examples that people have, in less time and half the memory;
    merged, they leave a model like any other. (SmolLM2-135M, 1,000 messages of 76 intents, 2 cores: loss 1.22 in 75 s,
    against 1.52 in some 200 s. Muon's work on whole matrices does not shrink with the batch.)

    Args:
        needs_all: whether all are to be trained: a learning rate of theirs was given.
    """
    from groundup.planner import parameter_count

    parameters = parameter_count(model.config)
    if asked is None and parameters >= _SMALL and not needs_all:
        told = "adapters are trained beside them, and merged; --method full trains all"
        console.note(f"{format_count(parameters)} parameters: {told}.")
        return "merged"
    return asked or "full"


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

    if method == "full":
        model.requires_grad_(True)
        return
    add_lora(model, LoRA(lora.rank, lora.alpha, lora.targets, dropout=lora.dropout), seed=seed)
    if isinstance(model, SequenceClassifier):
        model.score.requires_grad_(True)
    elif new_rows_from is not None:
        train_new_rows(model, new_rows_from)


def require_a_whole_model(method: Method | None, base: Path) -> None:
    """Refuse to leave adapters alone where the model gets new tokens."""
    if method == "lora":
        raise ConfigError(
            f"method = lora with {base}, which has no tokens that stand around a turn",
            rule="adapters are read beside their base as it lies there, which has no rows for new tokens",
            fix="Tune it with method = merged, which trains adapters, too, and leaves a whole model.",
        )


def require_own_rate(config: Config, method: Method | None, key: str) -> None:
    """Refuse a learning rate that is given for all weights, where adapters are asked for."""
    if method in ("lora", "merged") and sets(config, key):
        raise ConfigError(
            f"{key} = {getattr(config, key):g} with method = {method}",
            rule=f"{key} is for the model's own weights; adapters have a learning rate of their own",
            fix="Leave it out, or give AdamW's rate: --set lora.learning_rate=0.001.",
        )


def sets(config: Config, key: str) -> bool:
    """Whether a setting was given another value than its default."""
    return bool(getattr(config, key) != type(config).model_fields[key].default)


def save_tuned(
    method: Method, out: Path, model: Transformer, base: Path, tokenizer: Tokenizer, stop_ids: Sequence[int]
) -> list[Path]:
    """Leave a tuned language model, or its adapters; the tokenizer writes its own files beside them."""
    from groundup.checkpoint import save_model
    from groundup.model.lora import fuse_lora
    from groundup.model.new_rows import fuse_new_rows

    if method == "lora":
        return _save_adapters(out, model, base, tokenizer, stop_ids=stop_ids)
    fuse_lora(model)
    fuse_new_rows(model)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    return save_model(out, model, **ids, stop_ids=stop_ids)


def save_labelling(
    method: Method, out: Path, model: SequenceClassifier, base: Path, tokenizer: Tokenizer, labels: Sequence[str]
) -> list[Path]:
    """Leave a tuned classifier, or its adapters and head, like `save_tuned`."""
    from groundup.checkpoint import save_classifier
    from groundup.model.lora import fuse_lora

    if method == "lora":
        return _save_adapters(out, model, base, tokenizer, labels=labels)
    fuse_lora(model)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    return save_classifier(out, model, labels, **ids)


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
    from groundup.checkpoint.adapted import save_adapted
    from groundup.checkpoint.directory import save_generation_config

    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    files = save_adapted(out, model, base, labels=labels)
    return [*files, save_generation_config(out, **ids, stop_ids=stop_ids)]
