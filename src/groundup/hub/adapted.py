"""LoRA adapters and their base models: which model an adapter belongs to, and models with unmerged adapters.

An adapter directory contains PEFT's files and `groundup.json`. This file records the base model and a digest of the
base model's weights:

    {"format_version": 1, "base": {"path": ..., "relative": ..., "digest": ...}}

For a classifier, `groundup.json` also contains the list "labels" and the boolean "several" (true for multi-label
classification).

The base model of an adapter may itself be an adapter with a base model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.core.artifact import require_intact
from groundup.core.checksums import digests_of
from groundup.core.errors import DataError, FormatError
from groundup.core.files import read_json, write_json
from groundup.hub import directory as full_models
from groundup.hub.adapter_config import CLASSIFIER
from groundup.hub.adapters import CONFIG, WEIGHTS, head_rows, load_adapter, read_adapter_json, save_adapter
from groundup.hub.exports import require_intact_export
from groundup.hub.weight_files import is_gguf, weight_files
from groundup.model import SequenceClassifier, Transformer
from groundup.model.lora import copy_sharing_weights

BASE = "groundup.json"
FORMAT_VERSION = 1
_MAX_RECORD_BYTES = 10_000_000  # Maximum size of `groundup.json`; a list of labels may be long.


def is_adapter(directory: Path) -> bool:
    """Return whether the directory contains an adapter (written by groundup or PEFT) and not a full model."""
    return (directory / CONFIG).is_file() and not weight_files(directory)


def is_adapted_classifier(directory: Path) -> bool:
    """Return whether the adapter was trained for a classifier."""
    return read_adapter_json(directory).get("task_type") == CLASSIFIER


def adapter_labels(directory: Path) -> tuple[str, ...]:
    """Return the label names of an adapted classifier, or an empty tuple if they are not recorded."""
    return tuple(_record(directory).get("labels") or ())


def save_adapted(
    directory: Path, model: Transformer | SequenceClassifier, base: Path, *, labels: Sequence[str] = ()
) -> list[Path]:
    """Write the adapters of a model, and `groundup.json` with a reference to the base model.

    Args:
        directory: output directory.
        model: model with adapters.
        base: directory of the base model.
        labels: label names of a classifier, sorted by label index.

    Returns:
        The files written.
    """
    there = base.resolve()
    files = save_adapter(directory, model, base=str(there))
    named = {"path": str(there), "relative": _relative(there, directory), "digest": weights_digest(base)}
    record: dict[str, Any] = {"format_version": FORMAT_VERSION, "base": named}
    if isinstance(model, SequenceClassifier):
        record |= {"labels": list(labels), "several": model.multi_label}
    write_json(directory / BASE, record)
    return [*files, directory / BASE]


def find_adapter_base(directory: Path, given: Path | None = None) -> Path:
    """Return the directory of the base model that an adapter was trained on.

    The adapter records a relative and an absolute path of its base model. This function tries both paths.

    Args:
        directory: directory of the adapter.
        given: directory of the base model, if it was moved. The recorded paths are then not tried.

    Returns:
        The directory of the base model.

    Raises:
        DataError: the base model does not exist.
        FormatError: the weights of the base model are not the weights that the adapter was trained on.
    """
    named, written = _record(directory).get("base", {}), read_adapter_json(directory).get("base_model_name_or_path")
    places = [named.get("path"), written]
    candidates = [(directory / named["relative"]).resolve()] if named.get("relative") else []
    candidates += [Path(place) for place in places if isinstance(place, str) and place]
    if given is not None:
        candidates = [given]
    there = [path for path in dict.fromkeys(candidates) if path.is_dir() or is_gguf(path)]
    if not there:
        raise DataError(
            f"{directory}: its base model {given or written or named.get('path')} does not exist",
            rule="an adapter is loaded together with its base model",
            fix="Restore the base model, or give its directory: --base DIR.",
        )
    if "digest" not in named:  # PEFT does not record a digest of the weights.
        return there[0]
    for path in there:
        if weights_digest(path) == named["digest"]:
            return path
    raise FormatError(
        f"{there[0]}: not the base model of {directory}",
        rule="the adapter was trained on other weights",
        fix="Restore the base model, or train the adapter again on this model.",
    )


def is_adapter_of(directory: Path, base: Path) -> bool:
    """Return whether the directory contains an adapter that was trained on the weights of `base`."""
    return is_adapter(directory) and _record(directory).get("base", {}).get("digest") == weights_digest(base)


def weights_digest(directory: Path) -> str:
    """Return a digest of the weights of a model directory or of a GGUF file.

    The digest of an adapter covers its base model too.
    """
    files = [directory] if is_gguf(directory) else weight_files(directory)
    if not files and (directory / CONFIG).is_file():
        files = [directory / CONFIG, directory / WEIGHTS]
        named = _record(directory).get("base", {}).get("digest", "")
    else:
        named = ""
    found = digests_of(files)
    digests = [found[path] for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b("".join([*digests, named]).encode(), digest_size=16).hexdigest()


def content_digest(directory: Path, base: Path | None = None) -> bytes:
    """Return a digest of all files that the outputs of a model depend on: its weights and config, and its base model.

    Args:
        directory: model directory, adapter directory or model file.
        base: directory of an adapter's base model, if it was moved.
    """
    files: list[Path] = []
    for each in [directory] if directory.is_file() else adapter_stack(directory, base):
        weights = [each] if each.is_file() else weight_files(each)
        files += weights or [each / WEIGHTS]
        files += [path for path in (each / full_models.CONFIG, each / CONFIG) if path.is_file()]
    found = digests_of(files)
    return hashlib.blake2b("".join(found[path] for path in files).encode(), digest_size=16).digest()


def classifier_with_adapter(base: Transformer, directory: Path) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """Return a classifier with an unmerged adapter, and the label names. The classifier reuses the layers of `base`.

    Raises:
        FormatError: for the same reasons as in `load_classifier`.
    """
    rows = head_rows(directory)
    labels = tuple(_record(directory).get("labels") or (f"LABEL_{index}" for index in range(rows)))
    if len(labels) != rows or rows < 2:
        raise FormatError(
            f"{directory}: the classification head has {rows} rows for {len(labels)} labels",
            rule="the head needs one row per label, and at least two labels",
            fix="The files do not belong together: train or download the adapter again.",
        )
    multi_label = bool(_record(directory).get("several"))
    model = SequenceClassifier.from_language_model(base, rows, seed=0, multi_label=multi_label)
    load_adapter(directory, model)
    return model.eval().requires_grad_(False), labels


def with_adapter(base: Transformer, directory: Path) -> Transformer:
    """Return a model with an unmerged adapter. The model shares the weights of `base`; `base` is not modified.

    Raises:
        FormatError: for the same reasons as in `load_model`.
    """
    fine_tuned = copy_sharing_weights(base)
    load_adapter(directory, fine_tuned)
    return fine_tuned.eval().requires_grad_(False)


def full_model_directory(directory: Path) -> Path:
    """Return the directory of a full model: the given directory, or for an adapter the directory of its base model."""
    return adapter_stack(directory)[-1]


def require_intact_model(directory: Path, base: Path | None = None) -> None:
    """Verify the checksums of all files of a model. For an adapter, also verify the files of its base model.

    Directories that groundup did not write do not have checksums and are not verified. Results are cached; see
    `groundup.core.checksums`.

    Args:
        directory: model directory or adapter directory.
        base: directory of an adapter's base model, if it was moved.

    Raises:
        DataError: the base model of an adapter does not exist.
        FormatError: a file is damaged.
    """
    for each in adapter_stack(directory, base):
        if is_gguf(each):
            require_intact_export(each)
        else:
            require_intact(each)


def adapter_stack(directory: Path, base: Path | None = None) -> list[Path]:
    """Return the directories of an adapter, of the adapters below it, and of the full model at the end.

    Args:
        directory: model directory, adapter directory or GGUF file. A full model is returned alone.
        base: directory of the adapter's base model, if it was moved.

    Raises:
        DataError: the base model of an adapter does not exist.
        FormatError: the weights of a base model have changed, or the adapters refer to each other in a cycle.
    """
    stack = [directory]
    while is_adapter(stack[-1]):
        lower = find_adapter_base(stack[-1], base if len(stack) == 1 else None)
        if lower.resolve() in [path.resolve() for path in stack]:
            raise FormatError(
                f"{stack[-1]}: its base model is {lower}",
                rule="the base models of these adapters form a cycle",
                fix="The files are damaged: download the adapter again.",
            )
        stack.append(lower)
    return stack


def _record(directory: Path) -> dict[str, Any]:
    path = directory / BASE
    if not path.is_file():
        return {}
    record = read_json(path, max_bytes=_MAX_RECORD_BYTES)
    sound = isinstance(record, dict) and isinstance(record.get("base"), dict)
    sound = sound and all(isinstance(value, str | None) for value in record["base"].values())
    labels = record.get("labels", []) if sound else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise FormatError(
            f"{path}: invalid content",
            rule="must contain the adapter's base model, and for a classifier the labels",
            fix="Download or train the adapter again.",
        )
    if record.get("format_version", 0) > FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version {record['format_version']}",
            rule=f"this release of groundup reads format versions up to {FORMAT_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    return record


def _relative(base: Path, directory: Path) -> str | None:
    """Return the relative path from the adapter to its base model, which stays valid if both are moved together."""
    try:
        return Path(os.path.relpath(base, directory.resolve())).as_posix()
    except ValueError:  # On Windows, a relative path between two drives does not exist.
        return None
