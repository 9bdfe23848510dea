"""Verification of everything that groundup wrote: finished outputs, exports, and the checkpoints of unfinished runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, STARTED, accept, read_record
from groundup.core.checksums import damaged_files, is_checked_json, read_checked_json
from groundup.core.errors import DataError, GroundupError
from groundup.data import TokenShards
from groundup.hub.adapted import find_adapter_base, is_adapter
from groundup.hub.exports import STAGE as EXPORT
from groundup.hub.exports import export_records
from groundup.hub.source import is_gguf
from groundup.hub.training_state import damaged_state, has_checksums
from groundup.hub.weight_files import WeightFiles, weight_files

CHECKPOINTS = ("checkpoints", "checkpoints/good", "checkpoints/best")
_NO_CHECKSUMS = "no checksums"
_SHARDS = "tokenize"


@dataclass(slots=True)
class Verified:
    """One thing that was verified.

    Attributes:
        path: The directory or file.
        kind: The stage that wrote it, or what it is.
        files: How many files were read.
        damaged: Name of a file -> what is wrong with it.
        note: What could not be verified, and why.
        record: Where its checksums are; None: nowhere, or next to what they are of.
    """

    path: Path
    kind: str
    files: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    note: str = ""
    record: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"path": str(self.path), "record": str(self.record) if self.record else None}


def verify(path: Path) -> list[Verified]:
    """Read every file of a model, a run, or an export, and compare it with its checksum.

    Args:
        path: The output of one stage, a run's directory, a model directory from elsewhere, or a GGUF file.

    Raises:
        DataError: Nothing there that can be verified.
    """
    if path.is_file() and is_gguf(path):
        found = list(_export(path))
        return found or [Verified(path, "GGUF file", note=_NO_CHECKSUMS)]
    children = sorted(path.iterdir()) if path.is_dir() else []
    inside = [child for child in children if child.is_dir() and REPLACED_INFIX not in child.name]
    found = [each for directory in (path, *inside) for each in _directory(directory)]
    if not found and path.is_dir() and weight_files(path):
        found = [_foreign(path)]
    if found:
        return found
    raise DataError(
        f"{path}: nothing to verify",
        rule="what can be verified is a run, the output of a stage, a model directory, or a GGUF file",
        fix="Check the path.",
    )


def accept_all(found: list[Verified]) -> dict[Path, list[str]]:
    """Take damaged files as they are now; see `groundup.core.artifact.accept`. Checkpoints are left as they are.

    Returns:
        The record that was written -> names of the files that it has new checksums of.
    """
    return {each.record: accept(each.record) for each in found if each.damaged and each.record is not None}


def _directory(directory: Path) -> Iterator[Verified]:
    if (directory / ARTIFACT).is_file():
        yield _output(directory)
    elif (directory / STARTED).is_file():
        yield _unfinished(directory)
    for place in CHECKPOINTS:
        for step in sorted((directory / place).glob("step-*")):
            trouble = damaged_state(step)
            note = "" if trouble or has_checksums(step) else f"{_NO_CHECKSUMS}: an earlier release wrote it"
            files = sum(1 for _ in step.iterdir())
            yield Verified(step, "checkpoint", files, {"": trouble} if trouble else {}, note)
    for file in sorted(directory.glob("*.gguf")):
        yield from _export(file)


def _output(directory: Path) -> Verified:
    record = directory / ARTIFACT
    try:
        made = read_record(record)
    except GroundupError as error:
        return Verified(directory, "output", 1, {ARTIFACT: _trouble(error, record)}, record=record)
    digests = made.outputs | made.logs
    damaged = damaged_files(directory, digests, remember=False)
    note = "" if is_checked_json(record) else f"{ARTIFACT} has {_NO_CHECKSUMS} of its own: an earlier release wrote it"
    found = Verified(directory, made.stage, len(digests) + 1, damaged, note, record)
    if damaged:
        return found
    try:
        if made.stage == _SHARDS:
            for split in ("train", "validation"):
                TokenShards(directory, split).require_known_ids()
        if is_adapter(directory):
            find_adapter_base(directory)
    except GroundupError as error:
        found.damaged[""] = error.value
    return found


def _unfinished(directory: Path) -> Verified:
    """What a resumed run reads besides its checkpoints."""
    found = Verified(directory, "unfinished", 1)
    for name in (STARTED, "plan.json"):
        path = directory / name
        try:
            record = read_checked_json(path, fix="") if path.is_file() else {}
        except GroundupError as error:
            found.damaged[name] = _trouble(error, path)
            continue
        kept = record.get("kept", {}) if name == STARTED else {}
        found.files += len(kept)
        found.damaged |= damaged_files(directory, kept, remember=False)
    return found


def _export(file: Path) -> Iterator[Verified]:
    try:
        for path, made in export_records(file):
            digests = {file.name: made.outputs[file.name]}
            yield Verified(file, EXPORT, 1, damaged_files(file.parent, digests, remember=False), record=path)
    except GroundupError as error:
        yield Verified(file, EXPORT, 1, {"": error.value})


def _foreign(directory: Path) -> Verified:
    """A model that groundup did not write: its files' own headers, and finite weights."""
    found = Verified(directory, "model", note=f"{_NO_CHECKSUMS}: groundup did not write it")
    try:
        weights = WeightFiles(directory)
        found.files = len(weight_files(directory))
        for name in weights.names:
            weights.dtype(name)
            if not weights.tensor(name, passing=True).isfinite().all():
                found.damaged[name] = "values that are not finite"
    except GroundupError as error:
        found.damaged[""] = error.value
    return found


def _trouble(error: GroundupError, path: Path) -> str:
    return error.value.removeprefix(f"{path}: ")
