"""The directory of an adapter as a model: its base is found again and checked, and both are read as one.

`groundup.json` beside PEFT's files says where the base lies and what its weights are:

    {"format_version": 1, "base": {"path": ..., "relative": ..., "digest": ...}}

and of a classifier the "labels" by their index, and whether a text may have "several".

An adapter's base may be another adapter's directory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.core.artifact import require_intact
from groundup.core.checksums import digests_of
from groundup.core.errors import DataError, FormatError
from groundup.core.files import read_json, write_json
from groundup.hub import directory as whole
from groundup.hub.adapter_config import CLASSIFIER
from groundup.hub.adapters import CONFIG, WEIGHTS, head_rows, load_adapter, read_adapter_json, save_adapter
from groundup.hub.weight_files import weight_files
from groundup.model import ModelConfig, SequenceClassifier, Transformer
from groundup.model.lora import copy_sharing_weights, fuse_lora

BASE = "groundup.json"
FORMAT_VERSION = 1
_LARGEST = 10_000_000  # bytes; lists of labels may be long


def is_adapter(directory: Path) -> bool:
    """Whether it holds an adapter, ours or PEFT's, and no model of its own."""
    return (directory / CONFIG).is_file() and not weight_files(directory)


def is_adapted_classifier(directory: Path) -> bool:
    """Whether what that adapter makes of its base is a classifier."""
    return read_adapter_json(directory).get("task_type") == CLASSIFIER


def save_adapted(
    directory: Path, model: Transformer | SequenceClassifier, base: Path, *, labels: Sequence[str] = ()
) -> list[Path]:
    """Write the adapters of a model, and what they were trained beside.

    Args:
        base: the directory of the model without them.
        labels: of a classifier, the name of each label by its index.

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
    """The directory of the model that an adapter was trained beside: as it lay to it then, or where it lay.

    Args:
        given: where it lies now; then it is looked for nowhere else.

    Raises:
        DataError: it is gone.
        FormatError: what lies there has other weights.
    """
    named, written = _record(directory).get("base", {}), read_adapter_json(directory).get("base_model_name_or_path")
    places = [named.get("path"), written]
    candidates = [(directory / named["relative"]).resolve()] if named.get("relative") else []
    candidates += [Path(place) for place in places if isinstance(place, str) and place]
    if given is not None:
        candidates = [given]
    there = [path for path in dict.fromkeys(candidates) if path.is_dir()]
    if not there:
        raise DataError(
            f"{directory}: its base, {given or written or named.get('path')}, is not there",
            rule="an adapter is a small difference from the model that it was trained beside, and is read with it",
            fix="Put that model back, or say where it lies now: --base DIR.",
        )
    if "digest" not in named:  # PEFT's own, which says nothing about the weights
        return there[0]
    for path in there:
        if weights_digest(path) == named["digest"]:
            return path
    raise FormatError(
        f"{there[0]}: not the weights that {directory} was trained beside",
        rule="an adapter fits one model alone; beside another it answers nonsense",
        fix="Put the model back as it was, or train the adapter again on this one.",
    )


def belongs_to(directory: Path, base: Path) -> bool:
    """Whether a directory holds an adapter that was trained beside these weights, wherever they lay then."""
    return is_adapter(directory) and _record(directory).get("base", {}).get("digest") == weights_digest(base)


def weights_digest(directory: Path) -> str:
    """Identity of the weights of a model directory; of an adapter's, together with its base's."""
    files = weight_files(directory)
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


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device = "cpu",
    base: Path | None = None,
) -> Transformer:
    """Read the directory of a language model, or of an adapter, which is merged into its base: ready for inference.

    Args:
        dtype: of the weights; None: as each is stored.
        base: where an adapter's base lies now; see `find_adapter_base`.

    Raises:
        DataError: an adapter's base is gone.
        FormatError: no model there, a pickle instead of safetensors, another architecture, a damaged file, an adapter
            of another base.
    """
    *adapters, lowest = _stack(directory, base)
    model = whole.load_full_model(lowest, dtype=dtype, device=device)
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
    """Read the directory of a classifier, or of an adapter that makes one of a language model, as `load_model` does;
    with the names of its labels."""
    if not is_adapter(directory):
        return whole.load_full_classifier(directory, dtype=dtype, device=device)
    model, labels = classifier_with_adapter(
        load_model(find_adapter_base(directory, base), dtype=dtype, device=device), directory
    )
    fuse_lora(model)
    return model.eval().requires_grad_(False), labels


def classifier_with_adapter(base: Transformer, directory: Path) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """The classifier that an adapter makes of its base, not merged, with the names of its labels. It takes the base's
    layers into itself.

    Raises:
        FormatError: as `load_classifier`.
    """
    rows = head_rows(directory)
    labels = tuple(_record(directory).get("labels") or (f"LABEL_{index}" for index in range(rows)))
    if len(labels) != rows or rows < 2:
        raise FormatError(
            f"{directory}: a head of {rows} rows for {len(labels)} labels",
            rule="a classifier's head has a row for each of two or more labels",
            fix="The files do not belong together; train the adapter again, or get it again.",
        )
    multi_label = bool(_record(directory).get("several"))
    model = SequenceClassifier.from_language_model(base, rows, seed=0, multi_label=multi_label)
    load_adapter(directory, model)
    return model.eval().requires_grad_(False), labels


def with_adapter(base: Transformer, directory: Path) -> Transformer:
    """The model that an adapter makes of its base, not merged: both hold the same weights, and the base stays as it is.

    Raises:
        FormatError: as `load_model`.
    """
    tuned = copy_sharing_weights(base)
    load_adapter(directory, tuned)
    return tuned.eval().requires_grad_(False)


def read_config(directory: Path) -> ModelConfig:
    """The shape of a model directory's model, or of an adapter's base. No weights of it are loaded."""
    return whole.read_full_config(whole_model(directory))


def whole_model(directory: Path) -> Path:
    """The directory itself, or of an adapter the whole model that stands below it."""
    return _stack(directory)[-1]


def require_intact_model(directory: Path, base: Path | None = None) -> None:
    """Verify the files of a model directory, and of all that an adapter is read with, by their checksums.

    A directory that groundup did not write has none. What was verified is remembered: see `groundup.core.checksums`.

    Raises:
        DataError: an adapter's base is gone.
        FormatError: a file is damaged.
    """
    for each in _stack(directory, base):
        require_intact(each)


def _stack(directory: Path, given: Path | None = None) -> list[Path]:
    """An adapter, what it was trained beside, and so on down to a whole model."""
    stack = [directory]
    while is_adapter(stack[-1]):
        base = find_adapter_base(stack[-1], given if len(stack) == 1 else None)
        if base.resolve() in [path.resolve() for path in stack]:
            raise FormatError(
                f"{stack[-1]}: its base is {base}",
                rule="below adapters there is a whole model, which is no adapter",
                fix="Get the adapter again: its files are damaged.",
            )
        stack.append(base)
    return stack


def _record(directory: Path) -> dict[str, Any]:
    path = directory / BASE
    if not path.is_file():
        return {}
    record = read_json(path, max_bytes=_LARGEST)
    sound = isinstance(record, dict) and isinstance(record.get("base"), dict)
    sound = sound and all(isinstance(value, str | None) for value in record["base"].values())
    labels = record.get("labels", []) if sound else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise FormatError(
            f"{path}: not as groundup wrote it",
            rule="it names an adapter's base and a classifier's labels",
            fix="Get the adapter again, or train it again.",
        )
    if record.get("format_version", 0) > FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version {record['format_version']}",
            rule=f"this release reads up to {FORMAT_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    return record


def _relative(base: Path, directory: Path) -> str | None:
    """So that a directory that holds both can be moved."""
    try:
        return Path(os.path.relpath(base, directory.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return None
