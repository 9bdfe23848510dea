"""Resolution of a path, a model directory or a run, to a model, and loading of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, Artifact, read, read_intact
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, FormatError, ResourceError
from groundup.core.files import read_json
from groundup.core.pipeline import wrong_input_error
from groundup.hub.adapted import (
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
from groundup.hub.directory import CONFIG
from groundup.hub.lexical import LexicalHead
from groundup.hub.weight_files import INDEX, WEIGHTS, require_no_pickle, weight_files
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import (
    CONFIG_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    ChatTemplate,
    Tokenizer,
    verify_template_check,
)

_PRETRAINED = "pretrain"  # The stage that writes base models; other stages write fine-tuned models.
# Suffixes of transformers' class names for language models and for classifiers.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_CLASSIFIER = ("ForSequenceClassification",)
MODEL_MAX_LENGTH = "model_max_length"  # Key of tokenizer_config.json for the length at which transformers truncates.


@dataclass(frozen=True, slots=True, eq=False)
class OpenedModel:
    """A loaded model with its tokenizer.

    Attributes:
        directory: model directory, after resolution.
        model: the model.
        tokenizer: its tokenizer.
        stop_ids: ids that end generation (`eos_token_id` of the generation config).
    """

    directory: Path
    model: Transformer
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class OpenedClassifier:
    """A loaded classifier with its tokenizer.

    Attributes:
        directory: model directory, after resolution.
        model: the classifier.
        tokenizer: its tokenizer.
        labels: names of the labels, by index.
        longest: maximum number of tokens per text, as in training.
        lexical: lexical head, which replaces the model's own head; None: no lexical head.
    """

    directory: Path
    model: SequenceClassifier
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    longest: int
    lexical: LexicalHead | None = None


def open_model(path: Path, *, device: str | None = None, base: Path | None = None) -> OpenedModel:
    """Load a language model; see `resolve_model`.

    Args:
        path: model directory or run.
        device: device of the model; default: a GPU if available.
        base: directory of an adapter's base, if it was moved.

    Returns:
        The model with its tokenizer.

    Raises:
        DataError: the model or its tokenizer does not exist.
        FormatError: damaged files, or an unknown architecture.
        ResourceError: the device does not exist.
    """
    directory, device = resolve_model(path), usable_device(device)
    require_intact_model(directory, base)
    tokenizer = load_tokenizer(directory, base)
    model = load_model(directory, device=device, base=base)
    return OpenedModel(directory, model, tokenizer, tokenizer.stop_ids)


def open_chat_model(
    path: Path, device: str | None, console: Console, *, base: Path | None = None
) -> tuple[OpenedModel, ChatTemplate | None]:
    """Load a language model with its chat template; see `open_model` and `usable_template`.

    Args:
        path: model directory or run.
        device: device of the model; None: a GPU if available.
        console: output for warnings.
        base: directory of an adapter's base, if it was moved.

    Returns:
        The model, and its chat template if it has a usable one.

    Raises:
        DataError: the model does not exist.
        FormatError: a damaged model, or a chat template that renders differently than when it was written.
    """
    opened = open_model(path, device=device, base=base)
    return opened, usable_template(opened, console)


def usable_template(opened: OpenedModel, console: Console) -> ChatTemplate | None:
    """Return the chat template of a model; None if it has no usable one."""
    if opened.tokenizer.chat_template is None:
        return None
    try:
        template = ChatTemplate(opened.tokenizer)
    except (ConfigError, FormatError) as error:
        console.warn(f"{opened.directory}: its chat template cannot be used: {error.problem}")
        return None
    verify_template_check(opened.directory, template, opened.tokenizer)
    return template


def tokenizer_directory(path: Path) -> Path:
    """Return the directory of the tokenizer of a model, of an output of `tokenize`, or of a run.

    A path without a tokenizer is returned unchanged; loading the tokenizer then reports what is missing.
    """
    for directory in (path, path / "tokenizer"):
        if (directory / TOKENIZER_FILE).is_file():
            return directory
    try:
        return resolve_model(path)
    except DataError:
        return path


def open_adapter(base: OpenedModel, path: Path) -> OpenedModel:
    """Load an adapter of a loaded model, which stays unchanged; both share the base weights.

    Args:
        base: loaded base model.
        path: directory of the adapter.

    Returns:
        The model with the adapter.

    Raises:
        ConfigError: the path holds a full model.
        DataError: the path holds no language model.
        FormatError: damaged files, or an adapter of another base.
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
    named = tokenizer.config.get(MODEL_MAX_LENGTH)  # transformers writes 1e30 for no limit.
    context = model.config.context_length
    longest = min(int(named), context) if isinstance(named, int | float) and named >= 1 else context
    lexical = LexicalHead.load(directory, model.config.dim, len(labels))
    return OpenedClassifier(directory, model, tokenizer, labels, longest, lexical)


def load_tokenizer(directory: Path, base: Path | None = None) -> Tokenizer:
    """Load the tokenizer of a model directory; an adapter without one has the tokenizer of its base."""
    while is_adapter(directory) and not (directory / TOKENIZER_FILE).is_file():
        directory, base = find_adapter_base(directory, base), None
    return Tokenizer.load(directory)


def resolve_model(path: Path) -> Path:
    """Return the model directory of a path: itself, or the newest language model of a run, fine-tuned before base.

    Args:
        path: model directory or run.

    Returns:
        The directory.

    Raises:
        DataError: the path holds no causal language model; the message lists what was found.
    """
    models = _models(path, _CAUSAL)
    if not models:
        raise _none_found(path, "language model", "Wait until pretraining has finished, or give another directory.")
    return max(models, key=lambda model: (not is_base(model), finished(model)))


def resolve_classifier(path: Path) -> Path:
    """Return the classifier directory of a path: itself, or the newest classifier of a run.

    Args:
        path: directory of a classifier, or run.

    Returns:
        The directory.

    Raises:
        DataError: the path holds no classifier; the message lists what was found.
    """
    models = _models(path, _CLASSIFIER)
    if not models:
        raise _none_found(path, "classifier", "Train one first: groundup finetune classify.")
    return max(models, key=finished)


def resolve_any(path: Path) -> Path:
    """Return the path itself if it is a classifier's directory, otherwise the result of `resolve_model`."""
    return path if is_classifier(path) else resolve_model(path)


def is_classifier(path: Path) -> bool:
    """Return whether `path` itself is the directory of a classifier."""
    return _is_model(path, _CLASSIFIER)


def is_language_model(path: Path) -> bool:
    """Return whether `path` itself is the directory of a causal language model."""
    return _is_model(path, _CAUSAL)


def is_base(directory: Path) -> bool:
    """Return whether pretraining wrote the model."""
    return _stage(directory) == _PRETRAINED


def has_chat_template(directory: Path) -> bool:
    """Return whether the model has a chat template."""
    config = directory / CONFIG_FILE
    return (directory / TEMPLATE_FILE).is_file() or (config.is_file() and "chat_template" in read_json(config))


def model_identity(directory: Path) -> str:
    """Return the digest of the stage output, or for other models the digest of the weights.

    Raises:
        FormatError: a file is damaged.
    """
    if (directory / ARTIFACT).is_file():
        return read_intact(directory).digest
    return weights_digest(directory)


def base_identity(path: Path) -> str:
    """Return the identity of the language model of a model directory or run."""
    return model_identity(resolve_model(path))


def stage_output(path: Path, stage: str) -> Path | None:
    """Return the newest finished output of a stage in a run.

    Args:
        path: run, or a model in a run.
        stage: name of the stage.

    Returns:
        The directory, or None.
    """
    run = path.resolve().parent if (path / CONFIG).is_file() or is_adapter(path) else path
    return max((child for child in _outputs(run) if _stage(child) == stage), key=finished, default=None)


def run_text(path: Path) -> Path | None:
    """Return the corpus or the token shards of a run.

    Args:
        path: run, or a model in a run.

    Returns:
        The directory, or None.
    """
    return stage_output(path, "collect") or stage_output(path, "tokenize")


def _outputs(run: Path) -> Iterator[Path]:
    if run.is_dir():
        for child in run.iterdir():
            if child.is_dir() and not child.name.startswith(".") and REPLACED_INFIX not in child.name:
                yield child


def _models(path: Path, architectures: tuple[str, ...]) -> list[Path]:
    """Return the path itself if it is such a model, otherwise the models of the run."""
    if not path.is_dir():
        raise DataError(
            f"{path}: " + ("a file" if path.exists() else "no such directory"),
            rule="MODEL must be a model directory or a run",
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
        rule=f"a model directory contains {CONFIG} of a {kind} and {WEIGHTS} (or {INDEX})",
        fix=fix,
    )


def usable_device(name: str | None) -> str:
    """Return a usable device.

    Args:
        name: name of the device; None: a GPU if available, otherwise the CPU.

    Returns:
        The name.

    Raises:
        ResourceError: the device is not usable.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Copy a number there and back: only this shows whether the device works.
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
    """Return when the stage finished, in seconds since the epoch; without artifact, the file time of the weights."""
    made = _artifact(directory)
    if made is not None:
        return datetime.fromisoformat(made.finished_at).timestamp()
    return next(iter(weight_files(directory)), directory / ADAPTER).stat().st_mtime


def _siblings(parent: Path) -> str:
    names = sorted(child.name for child in parent.iterdir() if child.is_dir())[:12] if parent.is_dir() else []
    return f"Found in {parent}: {', '.join(names)}." if names else "Check the path."
