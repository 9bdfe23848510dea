"""Checksum verification of files that groundup wrote: finished outputs, exports, and checkpoints of unfinished runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, STARTED, accept, read_record
from groundup.core.checksums import damaged_files, read_checked_json
from groundup.core.errors import DataError, FormatError, GroundupError
from groundup.data import TokenShards
from groundup.hub.adapted import find_adapter_base, is_adapter
from groundup.hub.exports import STAGE as EXPORT
from groundup.hub.exports import export_records
from groundup.hub.training_state import damaged_state
from groundup.hub.weight_files import WeightFiles, is_gguf, weight_files

CHECKPOINTS = ("checkpoints", "checkpoints/good", "checkpoints/best")
_NO_CHECKSUMS = "no checksums"
_SHARDS = "tokenize"


@dataclass(slots=True)
class VerificationResult:
    """Result of the verification of one directory or file.

    Attributes:
        path: verified directory or file.
        kind: stage that wrote the directory or file, or another description such as "checkpoint".
        files: number of files that were read.
        damaged: name of each damaged file -> description of the damage.
        note: explanation of what could not be verified; empty if everything was verified.
        record: file whose checksums `accept_all` can replace; None if this file does not exist.
    """

    path: Path
    kind: str
    files: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    note: str = ""
    record: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self) | {"path": str(self.path), "record": str(self.record) if self.record else None}


def verify(path: Path) -> list[VerificationResult]:
    """Verify the checksums of all files of a model, a run, or an export.

    Args:
        path: output directory of a stage, run directory, other model directory, or GGUF file.

    Returns:
        One result per verified directory or file.

    Raises:
        DataError: the path does not contain files that can be verified.
    """
    if path.is_file() and is_gguf(path):
        found = list(_export(path))
        return found or [VerificationResult(path, "GGUF file", note=_NO_CHECKSUMS)]
    children = sorted(path.iterdir()) if path.is_dir() else []
    inside = [child for child in children if child.is_dir() and REPLACED_INFIX not in child.name]
    found = [each for directory in (path, *inside) for each in _directory(directory)]
    if not found and path.is_dir() and weight_files(path):
        found = [_external_model(path)]
    if found:
        return found
    raise DataError(
        f"{path}: nothing to verify",
        fix="Give a run, the output of a stage, a model directory, or a GGUF file.",
    )


def accept_all(found: list[VerificationResult]) -> dict[Path, list[str]]:
    """Write new checksums for the damaged files, so that their current content is accepted as intact.

    Checkpoints are excluded: a damaged checkpoint stays damaged. See `groundup.core.artifact.accept`.

    Args:
        found: results of `verify`.

    Returns:
        Record file -> names of the files that have new checksums.
    """
    return {each.record: accept(each.record) for each in found if each.damaged and each.record is not None}


def _directory(directory: Path) -> Iterator[VerificationResult]:
    if (directory / ARTIFACT).is_file():
        yield _output(directory)
    elif (directory / STARTED).is_file():
        yield _unfinished(directory)
    for place in CHECKPOINTS:
        for step in sorted((directory / place).glob("step-*")):
            try:
                problem = damaged_state(step)
            except FormatError as error:  # the checkpoint has another format version
                problem = error.problem
            files = sum(1 for _ in step.iterdir())
            yield VerificationResult(step, "checkpoint", files, {"": problem} if problem else {})
    for file in sorted(directory.glob("*.gguf")):
        yield from _export(file)


def _output(directory: Path) -> VerificationResult:
    record = directory / ARTIFACT
    try:
        made = read_record(record)
    except GroundupError as error:
        return VerificationResult(directory, "output", 1, {ARTIFACT: _problem(error, record)}, record=record)
    digests = made.outputs | made.logs
    damaged = damaged_files(directory, digests, remember=False)
    found = VerificationResult(directory, made.stage, len(digests) + 1, damaged, record=record)
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


def _unfinished(directory: Path) -> VerificationResult:
    """Verify the files that an unfinished run reads when it resumes, except for its checkpoints."""
    found = VerificationResult(directory, "unfinished", 1)
    for name in (STARTED, "plan.json"):
        path = directory / name
        try:
            record = read_checked_json(path, fix="") if path.is_file() else {}
        except GroundupError as error:
            found.damaged[name] = _problem(error, path)
            continue
        kept = record.get("kept", {}) if name == STARTED else {}
        found.files += len(kept)
        found.damaged |= damaged_files(directory, kept, remember=False)
    return found


def _export(file: Path) -> Iterator[VerificationResult]:
    try:
        for path, made in export_records(file):
            digests = {file.name: made.outputs[file.name]}
            yield VerificationResult(file, EXPORT, 1, damaged_files(file.parent, digests, remember=False), record=path)
    except GroundupError as error:
        yield VerificationResult(file, EXPORT, 1, {"": error.value})


def _external_model(directory: Path) -> VerificationResult:
    """Verify a model that groundup did not write: file headers must be valid, and all weights must be finite."""
    found = VerificationResult(directory, "model", note=f"{_NO_CHECKSUMS}: groundup did not write it")
    try:
        weights = WeightFiles(directory)
        found.files = len(weight_files(directory))
        for name in weights.names:
            if weights.type_name(name).startswith("I"):  # the values of a quantized matrix
                continue
            weights.dtype(name)
            if not weights.tensor(name, transient=True).isfinite().all():
                found.damaged[name] = "some values are not finite"
    except GroundupError as error:
        found.damaged[""] = error.value
    return found


def _problem(error: GroundupError, path: Path) -> str:
    return error.value.removeprefix(f"{path}: ")
