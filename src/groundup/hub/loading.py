"""Loading of models, classifiers, configs and tokenizers from model directories, adapters, GGUF files and runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from groundup.core.console import Console
from groundup.core.errors import ConfigError, FormatError
from groundup.hub import directory as full_models
from groundup.hub.adapted import (
    adapter_stack,
    classifier_with_adapter,
    find_adapter_base,
    full_model_directory,
    is_adapter,
    require_intact_model,
    with_adapter,
)
from groundup.hub.adapters import load_adapter
from groundup.hub.lexical import LexicalHead
from groundup.hub.resolve import resolve_classifier, resolve_model
from groundup.hub.weight_files import is_gguf
from groundup.kernels.machine import usable_device
from groundup.model import ModelConfig, SequenceClassifier, Transformer
from groundup.model.lora import fuse_lora
from groundup.tokenizer import TOKENIZER_FILE, ChatTemplate, Tokenizer, verify_template_check

if TYPE_CHECKING:
    from groundup.hub.gguf import GgufModel

MODEL_MAX_LENGTH = "model_max_length"  # Key in tokenizer_config.json: transformers truncates texts to this many tokens.


@dataclass(frozen=True, slots=True, eq=False)
class OpenedModel:
    """A loaded model with its tokenizer.

    Attributes:
        directory: model directory or GGUF file that the path was resolved to.
        model: the loaded model.
        tokenizer: tokenizer of the model.
        stop_ids: ids of the tokens that end generation (`eos_token_id` of the generation config).
        note: sentence for the user about a conversion of the weights; empty if they were not converted.
    """

    directory: Path
    model: Transformer
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedClassifier:
    """A loaded classifier with its tokenizer.

    Attributes:
        directory: model directory that the path was resolved to.
        model: the loaded classifier.
        tokenizer: tokenizer of the classifier.
        labels: label names, sorted by label index.
        longest: maximum number of tokens per text, the same as in training.
        lexical: lexical head, which replaces the standard classification head; None if the classifier does not have a
            lexical head.
    """

    directory: Path
    model: SequenceClassifier
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    longest: int
    lexical: LexicalHead | None = None


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device = "cpu",
    base: Path | None = None,
) -> Transformer:
    """Load a language model for inference. If the directory contains an adapter, merge it into its base model.

    Args:
        directory: model directory, adapter directory or GGUF file.
        dtype: data type of the loaded weights. If None, the weights of a full model keep their stored data type or
            quantization; see `load_full_model`.
        device: device of the weights.
        base: directory of an adapter's base model, if it was moved; see `find_adapter_base`.

    Returns:
        The model, in eval mode and frozen.

    Raises:
        DataError: the base model of an adapter does not exist.
        FormatError: the directory does not contain a model, the weights are pickles, the architecture is unknown, a
            file is damaged, or the adapter was trained on another base model.
    """
    *adapters, lowest = adapter_stack(directory, base)
    if adapters and dtype is None:  # Merging would round the sum to the stored data type.
        dtype = torch.float32
    model = full_models.load_full_model(lowest, dtype=dtype, device=device)
    for adapter in reversed(adapters):
        load_adapter(adapter, model)
        fuse_lora(model)
    return model.eval().requires_grad_(False)


def load_classifier(
    directory: Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device = "cpu",
    base: Path | None = None,
) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """Load a classifier for inference. If the directory contains an adapter, merge it into its base model.

    Args:
        directory: model directory or adapter directory.
        dtype: data type of the loaded weights. If None, the weights keep their stored data type.
        device: device of the weights.
        base: directory of an adapter's base model, if it was moved; see `find_adapter_base`.

    Returns:
        The classifier, in eval mode and frozen, and the names of its labels.

    Raises:
        DataError: the base model of an adapter does not exist.
        FormatError: for the same reasons as in `load_model`.
    """
    if not is_adapter(directory):
        return full_models.load_full_classifier(directory, dtype=dtype, device=device)
    model, labels = classifier_with_adapter(
        load_model(find_adapter_base(directory, base), dtype=dtype, device=device), directory
    )
    fuse_lora(model)
    return model.eval().requires_grad_(False), labels


def read_config(directory: Path) -> ModelConfig:
    """Return the config of a model without loading weights. For an adapter, return the config of its base model.

    Args:
        directory: model directory or adapter directory.

    Returns:
        The model config.

    Raises:
        DataError: the base model of an adapter does not exist.
        FormatError: for the same reasons as in `load_model`.
    """
    return full_models.read_full_config(full_model_directory(directory))


def load_tokenizer(directory: Path, base: Path | None = None) -> Tokenizer:
    """Load the tokenizer of a model directory or GGUF file.

    For an adapter without a tokenizer, load the tokenizer of its base model.
    """
    while is_adapter(directory) and not (directory / TOKENIZER_FILE).is_file():
        directory, base = find_adapter_base(directory, base), None
    return _open_gguf(directory).tokenizer() if is_gguf(directory) else Tokenizer.load(directory)


def open_model(
    path: Path, *, device: str | None = None, base: Path | None = None, as_stored: bool = False
) -> OpenedModel:
    """Load a language model and its tokenizer.

    Args:
        path: model directory, GGUF file or run; see `resolve_model`.
        device: device of the model. Default: a GPU if available, otherwise the CPU.
        base: directory of an adapter's base model, if it was moved.
        as_stored: whether the weights on a CPU keep their stored data type or quantization, and are memory-mapped.
            PyTorch converts such weights each time that it uses them; see `make_runner` for fast inference. By default,
            weights are fp32.

    Returns:
        The model with its tokenizer.

    Raises:
        DataError: the model or its tokenizer does not exist.
        FormatError: a file is damaged, or the architecture is unknown.
        ResourceError: the device does not exist.
    """
    directory, device = resolve_model(path), usable_device(device)
    require_intact_model(directory, base)
    tokenizer = load_tokenizer(directory, base)
    as_stored = as_stored and torch.device(device).type == "cpu"
    model = load_model(directory, dtype=None if as_stored else torch.float32, device=device, base=base)
    note = _open_gguf(directory).conversion_note() if as_stored and is_gguf(directory) else ""
    return OpenedModel(directory, model, tokenizer, tokenizer.stop_ids, note)


def open_chat_model(
    path: Path, device: str | None, console: Console, *, base: Path | None = None, as_stored: bool = True
) -> tuple[OpenedModel, ChatTemplate | None]:
    """Load a language model and its chat template; see `open_model` and `usable_template`.

    Args:
        path: model directory, GGUF file or run.
        device: device of the model. If None, a GPU is used if available, otherwise the CPU.
        console: output for warnings.
        base: directory of an adapter's base model, if it was moved.
        as_stored: whether the weights on a CPU keep their stored data type or quantization. By default they do.

    Returns:
        The model, and its chat template. The template is None if the model does not have a usable chat template.

    Raises:
        DataError: the model does not exist.
        FormatError: the model is damaged, or its chat template now renders a different text than at the time when the
            model was written.
    """
    opened = open_model(path, device=device, base=base, as_stored=as_stored)
    if opened.note:
        console.note(opened.note)
    return opened, usable_template(opened, console)


def open_adapter(base: OpenedModel, path: Path) -> OpenedModel:
    """Load an adapter for a base model that is already loaded. The new model shares the weights of the base model.

    Args:
        base: loaded base model; it is not modified.
        path: directory of the adapter.

    Returns:
        The base model with the adapter.

    Raises:
        ConfigError: the path contains a full model.
        DataError: the path does not contain a language model.
        FormatError: a file is damaged, or the adapter was trained on another base model.
    """
    directory = resolve_model(path)
    if not is_adapter(directory):
        raise ConfigError(
            f"{directory}: a full model, not an adapter",
            rule=f"only adapters can share the weights of {base.directory}",
            fix="Load it as a separate model, or give the directory of an adapter.",
        )
    require_intact_model(directory, base.directory)
    tokenizer = load_tokenizer(directory, base.directory)
    return OpenedModel(directory, with_adapter(base.model, directory), tokenizer, tokenizer.stop_ids)


def open_classifier(path: Path, *, device: str | None = None, base: Path | None = None) -> OpenedClassifier:
    """Load a classifier; see `resolve_classifier` and `open_model`."""
    directory, device = resolve_classifier(path), usable_device(device)
    require_intact_model(directory, base)
    tokenizer = load_tokenizer(directory, base)
    model, labels = load_classifier(directory, device=device, base=base)
    named = tokenizer.config.get(MODEL_MAX_LENGTH)  # transformers writes 1e30 if the length is not limited.
    context = model.config.context_length
    longest = min(int(named), context) if isinstance(named, int | float) and named >= 1 else context
    lexical = LexicalHead.load(directory, model.config.dim, len(labels))
    return OpenedClassifier(directory, model, tokenizer, labels, longest, lexical)


def usable_template(opened: OpenedModel, console: Console) -> ChatTemplate | None:
    """Return the chat template of a model; None if the model does not have a usable chat template."""
    if opened.tokenizer.chat_template is None:
        return None
    try:
        template = ChatTemplate(opened.tokenizer)
    except (ConfigError, FormatError) as error:
        console.warn(f"{opened.directory}: the chat template cannot be used: {error.problem}")
        return None
    verify_template_check(opened.directory, template, opened.tokenizer)
    return template


def _open_gguf(path: Path) -> GgufModel:
    from groundup.hub.gguf import open_gguf  # slow to import

    return open_gguf(path)
