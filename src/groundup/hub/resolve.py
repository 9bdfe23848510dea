"""Resolution of a path (a model directory, a GGUF file or a run) to a model directory, and facts about models."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, Artifact, read, read_intact
from groundup.core.errors import DataError
from groundup.core.files import read_json
from groundup.core.pipeline import wrong_input_error
from groundup.hub.adapted import adapter_labels, is_adapted_classifier, is_adapter, weights_digest
from groundup.hub.adapters import WEIGHTS as ADAPTER
from groundup.hub.directory import CONFIG, read_labels
from groundup.hub.weight_files import INDEX, WEIGHTS, is_gguf, require_no_pickle, weight_files
from groundup.tokenizer import CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_FILE

_PRETRAINED = "pretrain"  # Name of the stage that writes base models. Other stages write fine-tuned models.
# Suffixes of transformers' class names of causal language models and of classifiers.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_CLASSIFIER = ("ForSequenceClassification",)


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
        from groundup.hub.gguf import open_gguf  # slow to import

        return open_gguf(directory).has_chat_template
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
