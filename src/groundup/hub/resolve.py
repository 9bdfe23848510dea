"""Resolution of a path (a model directory or a run) to a model directory, and loading of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, Artifact, read, read_intact
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, FormatError, ResourceError
from groundup.core.files import read_json
from groundup.core.pipeline import wrong_input_error
from groundup.hub.adapted import (
    adapter_labels,
    find_adapter_base,
    is_adapted_classifier,
    is_adapter,
    load_classifier,
    load_model,
    require_intact_model,
    weights_digest,
    with_adapter,
)
from groundup.hub.adapters import WEIGHTS as ADAPTER
from groundup.hub.directory import CONFIG, read_labels
from groundup.hub.lexical import LexicalHead
from groundup.hub.weight_files import INDEX, WEIGHTS, is_gguf, require_no_pickle, weight_files
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import (
    CONFIG_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    ChatTemplate,
    Tokenizer,
    verify_template_check,
)

if TYPE_CHECKING:
    from groundup.hub.gguf import GgufModel

_PRETRAINED = "pretrain"  # Name of the stage that writes base models. Other stages write fine-tuned models.
# Suffixes of transformers' class names of causal language models and of classifiers.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_CLASSIFIER = ("ForSequenceClassification",)
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


def tokenizer_directory(path: Path) -> Path:
    """Return the directory that contains the tokenizer of a model, of an output of `tokenize`, or of a run.

    If no tokenizer exists, the path is returned unchanged. Loading the tokenizer then raises an error with the names of
    the missing files.
    """
    for directory in (path, path / "tokenizer"):
        if (directory / TOKENIZER_FILE).is_file():
            return directory
    try:
        return resolve_model(path)
    except DataError:
        return path


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


def load_tokenizer(directory: Path, base: Path | None = None) -> Tokenizer:
    """Load the tokenizer of a model directory or GGUF file.

    For an adapter without a tokenizer, load the tokenizer of its base model.
    """
    while is_adapter(directory) and not (directory / TOKENIZER_FILE).is_file():
        directory, base = find_adapter_base(directory, base), None
    return _open_gguf(directory).tokenizer() if is_gguf(directory) else Tokenizer.load(directory)


def _open_gguf(path: Path) -> GgufModel:
    from groundup.hub.gguf import open_gguf  # slow to import

    return open_gguf(path)


def resolve_model(path: Path) -> Path:
    """Resolve a path to the directory or GGUF file of a language model.

    A model directory or GGUF file is returned unchanged. For a run, the newest fine-tuned model is returned, or the
    newest base model if the run does not contain a fine-tuned model.

    Args:
        path: model directory, GGUF file or run.

    Returns:
        The model directory or GGUF file.

    Raises:
        DataError: the path does not contain a causal language model. The message lists the files that were found.
    """
    if is_gguf(path):
        return path
    models = _models(path, _CAUSAL)
    if not models:
        raise _none_found(path, "language model", "Wait until pretraining has finished, or give another directory.")
    return max(models, key=lambda model: (not is_base(model), finished(model)))


def resolve_classifier(path: Path) -> Path:
    """Resolve a path to the directory of a classifier.

    The directory of a classifier is returned unchanged. For a run, the newest classifier is returned.

    Args:
        path: directory of a classifier, or run.

    Returns:
        The directory of the classifier.

    Raises:
        DataError: the path does not contain a classifier. The message lists the files that were found.
    """
    models = _models(path, _CLASSIFIER)
    if not models:
        raise _none_found(path, "classifier", "Train a classifier first: groundup finetune classify.")
    return max(models, key=finished)


def resolve_any(path: Path) -> Path:
    """Return the path itself if it is the directory of a classifier, otherwise the result of `resolve_model`."""
    return path if is_classifier(path) else resolve_model(path)


def is_classifier(path: Path) -> bool:
    """Return whether `path` itself is the directory of a classifier."""
    return _is_model(path, _CLASSIFIER)


def classifier_labels(directory: Path) -> tuple[str, ...]:
    """Return the label names of a classifier without loading its weights.

    Args:
        directory: Directory of the classifier, or of an adapter of a classifier.
    """
    return adapter_labels(directory) if is_adapter(directory) else read_labels(read_json(directory / CONFIG))[0]


def is_language_model(path: Path) -> bool:
    """Return whether `path` itself is the directory of a causal language model."""
    return _is_model(path, _CAUSAL)


def is_base(directory: Path) -> bool:
    """Return whether pretraining wrote the model."""
    return _stage(directory) == _PRETRAINED


def has_chat_template(directory: Path) -> bool:
    """Return whether the model has a chat template."""
    if is_gguf(directory):
        return _open_gguf(directory).has_chat_template
    config = directory / CONFIG_FILE
    return (directory / TEMPLATE_FILE).is_file() or (config.is_file() and "chat_template" in read_json(config))


def model_identity(directory: Path) -> str:
    """Return a digest that identifies a model.

    For the output of a stage, this is the digest of the artifact. For other models, it is the digest of the weights.

    Raises:
        FormatError: a file is damaged.
    """
    if (directory / ARTIFACT).is_file():
        return read_intact(directory).digest
    return weights_digest(directory)


def base_identity(path: Path) -> str:
    """Return the digest (`model_identity`) of the language model that a model directory or run resolves to."""
    return model_identity(resolve_model(path))


def stage_output(path: Path, stage: str) -> Path | None:
    """Return the newest finished output of a stage in a run.

    Args:
        path: run, or a model directory in a run.
        stage: name of the stage.

    Returns:
        The output directory; None if the stage does not have a finished output.
    """
    run = path.resolve().parent if (path / CONFIG).is_file() or is_adapter(path) else path
    return max((child for child in _outputs(run) if _stage(child) == stage), key=finished, default=None)


def run_text(path: Path) -> Path | None:
    """Return the corpus of a run, or its token shards if the run does not contain a corpus.

    Args:
        path: run, or a model directory in a run.

    Returns:
        The output directory of `collect` or `tokenize`; None if the run contains neither.
    """
    return stage_output(path, "collect") or stage_output(path, "tokenize")


def _outputs(run: Path) -> Iterator[Path]:
    if run.is_dir():
        for child in run.iterdir():
            if child.is_dir() and not child.name.startswith(".") and REPLACED_INFIX not in child.name:
                yield child


def _models(path: Path, architectures: tuple[str, ...]) -> list[Path]:
    """Return the models with one of the architectures: the path itself, or the models in a run."""
    if not path.is_dir():
        raise DataError(
            f"{path}: " + ("a file" if path.exists() else "no such directory"),
            rule="MODEL must be a model directory, a GGUF file or a run",
            fix=_siblings(path.parent),
        )
    if _is_model(path, architectures):
        return [path]
    if (path / CONFIG).is_file():
        require_no_pickle(path)
    return [child for child in _outputs(path) if _is_model(child, architectures)]


def _none_found(path: Path, kind: str, fix: str) -> DataError:
    if kind == "language model" and (error := wrong_input_error(path, _PRETRAINED)):
        return error
    found = ", ".join(sorted(child.name for child in path.iterdir())[:12]) or "nothing"
    return DataError(
        f"{path}: no {kind} (found: {found})",
        rule=f"the directory of a {kind} contains {CONFIG} and {WEIGHTS} (or {INDEX})",
        fix=fix,
    )


def usable_device(name: str | None) -> str:
    """Return the name of a device after a check that torch can use the device.

    Args:
        name: name of the device. If None, a GPU is used if available, otherwise the CPU.

    Returns:
        The name of the device.

    Raises:
        ResourceError: torch cannot use the device.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Copy a number to the device and back, because only a computation shows whether the device works.
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # The exception type depends on the device.
        message = str(error).strip().splitlines() or [type(error).__name__]
        raise ResourceError(
            f'device = "{name}": {message[0][:200]}',
            rule="this machine or this build of torch does not support it",
            fix=f"Omit the setting, or give one of: {', '.join(_devices())}.",
        ) from None
    return name


def _devices() -> list[str]:
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _is_model(directory: Path, architectures: tuple[str, ...]) -> bool:
    if is_adapter(directory):
        return architectures == (_CLASSIFIER if is_adapted_classifier(directory) else _CAUSAL)
    weights = (directory / WEIGHTS).is_file() or (directory / INDEX).is_file()
    if not (weights and (directory / CONFIG).is_file()):
        return False
    return any(name.endswith(architectures) for name in read_json(directory / CONFIG).get("architectures") or [])


def _artifact(directory: Path) -> Artifact | None:
    return read(directory) if (directory / ARTIFACT).is_file() else None


def _stage(directory: Path) -> str | None:
    made = _artifact(directory)
    return made.stage if made is not None else None


def finished(directory: Path) -> float:
    """Return the time at which the stage finished, in seconds since the epoch.

    If the directory does not have an artifact, return the modification time of the weights.
    """
    made = _artifact(directory)
    if made is not None:
        return datetime.fromisoformat(made.finished_at).timestamp()
    weights = directory if is_gguf(directory) else next(iter(weight_files(directory)), directory / ADAPTER)
    return weights.stat().st_mtime


def _siblings(parent: Path) -> str:
    names = sorted(child.name for child in parent.iterdir() if child.is_dir())[:12] if parent.is_dir() else []
    return f"Found in {parent}: {', '.join(names)}." if names else "Check the path."
