"""Listing and deletion of replaced outputs: earlier outputs that the output of a newer run has replaced."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from groundup.core.artifact.record import ARTIFACT, REPLACED_INFIX, STARTED
from groundup.core.artifact.work import NEW
from groundup.core.errors import DataError, GroundupError
from groundup.core.files import read_json
from groundup.core.locks import lock_owner

_REPLACED = re.compile(rf".+{re.escape(REPLACED_INFIX)}(\d{{8}}-\d{{6}})(-\d+)?")
_UNFINISHED = re.compile(rf"\.(.+){re.escape(NEW)}[0-9a-f]+")
_DEPTH = 3  # directory levels from runs/ to runs/NAME/STAGE.replaced-DATE


@dataclass(frozen=True, slots=True)
class Replaced:
    """An output that a newer output has replaced. No stage reads a replaced output.

    Attributes:
        path: Directory of the replaced output.
        stage: Name of the stage that wrote the output.
        finished: Whether the stage finished. If false, it was interrupted, and later ran again with other settings.
        date: Date of the replacement, or of the last write to the directory.
        bytes: Size of the directory in bytes.
    """

    path: Path
    stage: str
    finished: bool
    date: datetime
    bytes: int


def replaced_in(directory: Path) -> list[Replaced]:
    """Return the replaced outputs in a directory, from oldest to newest.

    Args:
        directory: Directory of all runs, directory of one run, or a replaced output.

    Raises:
        DataError: The directory does not exist.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory", fix="Check the path, which is runs/ by default.")
    found = (_replaced_at(path) for path in _directories(directory, _DEPTH))
    return sorted((each for each in found if each is not None), key=lambda each: (each.date, each.path))


def remove(replaced: Replaced) -> None:
    """Delete a replaced output.

    Args:
        replaced: Output to delete.
    """
    shutil.rmtree(replaced.path)


def _directories(directory: Path, depth: int) -> Iterator[Path]:
    yield directory
    if depth and not _is_replaced_name(directory):
        for child in sorted(directory.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _directories(child, depth - 1)


def _is_replaced_name(path: Path) -> bool:
    return bool(_REPLACED.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name))


def _replaced_at(path: Path) -> Replaced | None:
    """Return the replaced output at a path. Return None if groundup did not write it or if a process is using it."""
    replaced_name, unfinished = _REPLACED.fullmatch(path.name), _UNFINISHED.fullmatch(path.name)
    record_path = next(
        (record_path for record_path in (path / ARTIFACT, path / STARTED) if record_path.is_file()), None
    )
    if record_path is None or not (replaced_name or unfinished):
        return None
    if unfinished and lock_owner(path.with_name(unfinished[1])) is not None:
        return None
    try:
        record: Any = read_json(record_path)
    except GroundupError:
        record = None  # damaged; name and file still identify groundup
    stage = record.get("stage") if isinstance(record, dict) else None
    date = datetime.fromtimestamp(record_path.stat().st_mtime)
    if replaced_name:
        try:
            date = datetime.strptime(replaced_name[1], "%Y%m%d-%H%M%S")
        except ValueError:
            return None
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return Replaced(path, str(stage or "unknown"), record_path.name == ARTIFACT, date, size)
