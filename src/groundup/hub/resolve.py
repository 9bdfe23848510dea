"""From what a user points at, a model directory or a run, to the model that is meant."""

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
    require_golden,
)

_PRETRAINED = "pretrain"  # the stage that leaves a base model; what any other stage leaves is tuned
# How transformers ends the names of its language models, and of its classifiers.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_CLASSIFIER = ("ForSequenceClassification",)
MODEL_MAX_LENGTH = "model_max_length"  # of tokenizer_config.json: where transformers' `truncation=True` cuts


@dataclass(frozen=True, slots=True, eq=False)
class OpenedModel:
    """A model with what belongs to it.

    Attributes:
        directory: where it lies, after resolution.
        stop_ids: the tokens that end what it writes (`eos_token_id` of its generation config, one or a list).
    """

    directory: Path
    model: Transformer
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class OpenedClassifier:
    """A classifier with what belongs to it.

    Attributes:
        directory: where it lies, after resolution.
        labels: the name of each label, by its index.
        longest: tokens of a text that it reads: as many as it was trained on.
        lexical: labels texts instead of the model's own head; None: there is none.
    """

    directory: Path
    model: SequenceClassifier
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    longest: int
    lexical: LexicalHead | None = None


def open_model(path: Path, *, device: str | None = None, base: Path | None = None) -> OpenedModel:
    """Load the model that `path` means (see `resolve_model`) onto a device: by default a GPU where there is
    one.

    Args:
        base: where an adapter's base lies now; otherwise it is looked for where it lay.

    Raises:
        DataError: no model there, or no tokenizer with it.
        FormatError: damaged files, or an architecture that is not ours.
        ResourceError: no such device here.
    """
    directory, device = resolve_model(path), usable_device(device)
    require_intact_model(directory, base)
    tokenizer = load_tokenizer(directory, base)
    model = load_model(directory, device=device, base=base)
    return OpenedModel(directory, model, tokenizer, tokenizer.stop_ids)


def open_chat_model(
    path: Path, device: str | None, console: Console, *, base: Path | None = None
) -> tuple[OpenedModel, ChatTemplate | None]:
    """Open the model that `path` means, with its chat template; see `open_model` and `usable_template`.

    Args:
        base: the directory of an adapter's base, if it was moved.

    Raises:
        DataError: no model there.
        FormatError: a damaged model, or a chat template that renders differently than when it was written.
    """
    opened = open_model(path, device=device, base=base)
    return opened, usable_template(opened, console)


def usable_template(opened: OpenedModel, console: Console) -> ChatTemplate | None:
    """Return the chat template of an opened model; None if it has none or one that cannot be used."""
    if opened.tokenizer.chat_template is None:
        return None
    try:
        template = ChatTemplate(opened.tokenizer)
    except (ConfigError, FormatError) as error:
        console.warn(f"{opened.directory}: its chat template cannot be used: {error.problem}")
        return None
    require_golden(opened.directory, template, opened.tokenizer)
    return template


def tokenizer_directory(path: Path) -> Path:
    """Return the directory of the tokenizer that `path` means: a model, an output of `tokenize`, or a run's model.

    A path without any is returned as it is: opening its tokenizer reports what is missing.
    """
    for directory in (path, path / "tokenizer"):
        if (directory / TOKENIZER_FILE).is_file():
            return directory
    try:
        return resolve_model(path)
    except DataError:
        return path


def open_beside(base: OpenedModel, path: Path) -> OpenedModel:
    """Load the adapter that `path` means beside an opened model, which stays as it is: both share its tensors.

    Raises:
        ConfigError: a whole model.
        DataError: nothing there, or a classifier.
        FormatError: damaged files, or an adapter of another base.
    """
    directory = resolve_model(path)
    if not is_adapter(directory):
        raise ConfigError(
            f"{directory}: a whole model",
            rule=f"what shares the tensors of {base.directory} is an adapter of it",
            fix="Open it by itself, or give the directory of an adapter.",
        )
    require_intact_model(directory, base.directory)
    tokenizer = load_tokenizer(directory, base.directory)
    return OpenedModel(directory, with_adapter(base.model, directory), tokenizer, tokenizer.stop_ids)


def open_classifier(path: Path, *, device: str | None = None, base: Path | None = None) -> OpenedClassifier:
    """Load the classifier that `path` means (see `resolve_classifier`); otherwise like `open_model`."""
    directory, device = resolve_classifier(path), usable_device(device)
    require_intact_model(directory, base)
    tokenizer = load_tokenizer(directory, base)
    model, labels = load_classifier(directory, device=device, base=base)
    named = tokenizer.config.get(MODEL_MAX_LENGTH)  # transformers writes 1e30 where there is no limit
    context = model.config.context_length
    longest = min(int(named), context) if isinstance(named, int | float) and named >= 1 else context
    lexical = LexicalHead.load(directory, model.config.dim, len(labels))
    return OpenedClassifier(directory, model, tokenizer, labels, longest, lexical)


def load_tokenizer(directory: Path, base: Path | None = None) -> Tokenizer:
    """The tokenizer of a model directory; an adapter's that has none of its own has its base's."""
    while is_adapter(directory) and not (directory / TOKENIZER_FILE).is_file():
        directory, base = find_adapter_base(directory, base), None
    return Tokenizer.load(directory)


def resolve_model(path: Path) -> Path:
    """The model directory that `path` means: itself, or of a run the newest causal model, tuned before base.

    Raises:
        DataError: nothing there, or no causal language model in it; the message lists what was found.
    """
    models = _models(path, _CAUSAL)
    if not models:
        raise _none_found(path, "language model", "Wait until pretraining has finished, or give another directory.")
    return max(models, key=lambda model: (not is_base(model), finished(model)))


def resolve_classifier(path: Path) -> Path:
    """The classifier's directory that `path` means: itself, or the newest one of a run.

    Raises:
        DataError: nothing there, or no classifier in it; the message lists what was found.
    """
    models = _models(path, _CLASSIFIER)
    if not models:
        raise _none_found(path, "classifier", "Train one first: groundup finetune classify.")
    return max(models, key=finished)


def resolve_any(path: Path) -> Path:
    """Return the model directory that `path` means: itself if it is a classifier's, otherwise see `resolve_model`."""
    return path if is_classifier(path) else resolve_model(path)


def is_classifier(path: Path) -> bool:
    """Whether `path` itself is a classifier's directory."""
    return _is_model(path, _CLASSIFIER)


def is_language_model(path: Path) -> bool:
    """Whether `path` itself is a causal language model's directory."""
    return _is_model(path, _CAUSAL)


def is_base(directory: Path) -> bool:
    """Whether pretraining left the model there."""
    return _stage(directory) == _PRETRAINED


def has_chat_template(directory: Path) -> bool:
    """Whether the model there was tuned to chat: its tokenizer's files say how."""
    config = directory / CONFIG_FILE
    return (directory / TEMPLATE_FILE).is_file() or (config.is_file() and "chat_template" in read_json(config))


def model_identity(directory: Path) -> str:
    """Of a model that a stage left, the digest of that; of one from elsewhere, that of its weights.

    Raises:
        FormatError: a file of it is damaged.
    """
    if (directory / ARTIFACT).is_file():
        return read_intact(directory).digest
    return weights_digest(directory)


def base_identity(path: Path) -> str:
    """Return the identity of the language model that `path`, a model or a run, means."""
    return model_identity(resolve_model(path))


def stage_output(path: Path, stage: str) -> Path | None:
    """The newest finished output of a stage in the run that `path` is, or in which that model lies; None: none."""
    run = path.resolve().parent if (path / CONFIG).is_file() or is_adapter(path) else path
    return max((child for child in _outputs(run) if _stage(child) == stage), key=finished, default=None)


def run_text(path: Path) -> Path | None:
    """Return the corpus or the token shards of the run that `path` is, or in which that model is; None: none."""
    return stage_output(path, "collect") or stage_output(path, "tokenize")


def _outputs(run: Path) -> Iterator[Path]:
    if run.is_dir():
        for child in run.iterdir():
            if child.is_dir() and not child.name.startswith(".") and REPLACED_INFIX not in child.name:
                yield child


def _models(path: Path, architectures: tuple[str, ...]) -> list[Path]:
    """`path` itself if it is such a model, else those of the run that it is."""
    if not path.is_dir():
        raise DataError(
            f"{path}: " + ("a file" if path.exists() else "no such directory"),
            rule="MODEL is a model directory or a run directory",
            fix=_neighbours(path.parent),
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
        f"{path}: no {kind} in it (found: {found})",
        rule=f"a model directory holds {CONFIG} of a {kind} and {WEIGHTS} (or {INDEX}); a run holds model directories",
        fix=fix,
    )


def usable_device(name: str | None) -> str:
    """A device that computes: the one of this name, or by default a GPU where there is one.

    Raises:
        ResourceError: no device of this name computes here.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # A number goes there and back: of a name that torch knows, only this says whether anything answers to it.
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # torch has no one way to say it
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ResourceError(
            f'device = "{name}": {said[0][:200]}',
            rule="a device is one that this machine has and this build of torch can use",
            fix=f"Leave it out, or give one of: {', '.join(_devices())}.",
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
    """When the stage finished (seconds since the epoch); without artifact, the file time of the weights."""
    made = _artifact(directory)
    if made is not None:
        return datetime.fromisoformat(made.finished_at).timestamp()
    return next(iter(weight_files(directory)), directory / ADAPTER).stat().st_mtime


def _neighbours(parent: Path) -> str:
    names = sorted(child.name for child in parent.iterdir() if child.is_dir())[:12] if parent.is_dir() else []
    return f"Found in {parent}: {', '.join(names)}." if names else "Check the path."
