"""Outputs that gave way to those of other settings: finding them, and removing them when the user asks."""

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
_DEPTH = 3  # runs/NAME/STAGE.replaced-DATE, from the directory that holds runs


@dataclass(frozen=True, slots=True)
class Replaced:
    """One directory that no stage reads any more.

    Attributes:
        path: Where it is.
        stage: The stage that wrote it.
        finished: Whether that stage had finished; otherwise it was interrupted, and its settings changed since.
        date: When it was replaced, or was written to last.
        bytes: Its size.
    """

    path: Path
    stage: str
    finished: bool
    date: datetime
    bytes: int


def replaced_in(directory: Path) -> list[Replaced]:
    """Return the replaced outputs that a directory is or holds, oldest first.

    Args:
        directory: A directory of runs, a run, or one replaced output.

    Raises:
        DataError: No such directory.
    """
    if not directory.is_dir():
        raise DataError(
            f"{directory}: no such directory",
            rule="replaced outputs are looked for in a run, or in a directory of runs",
            fix="Check the path.",
        )
    found = (_seen(path) for path in _directories(directory, _DEPTH))
    return sorted((each for each in found if each is not None), key=lambda each: (each.date, each.path))


def remove(replaced: Replaced) -> None:
    """Delete a replaced output."""
    shutil.rmtree(replaced.path)


def _directories(directory: Path, depth: int) -> Iterator[Path]:
    yield directory
    if depth and not _named(directory):
        for child in sorted(directory.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _directories(child, depth - 1)


def _named(path: Path) -> bool:
    return bool(_REPLACED.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name))


def _seen(path: Path) -> Replaced | None:
    """What was replaced here; None of any directory that is not ours, or that a process works in."""
    named, unfinished = _REPLACED.fullmatch(path.name), _UNFINISHED.fullmatch(path.name)
    mark = next((mark for mark in (path / ARTIFACT, path / STARTED) if mark.is_file()), None)
    if mark is None or not (named or unfinished):
        return None
    if unfinished and lock_owner(path.with_name(unfinished[1])) is not None:
        return None
    try:
        record: Any = read_json(mark)
    except GroundupError:
        record = None  # damaged; it is ours by its name and by the file that it holds
    stage = record.get("stage") if isinstance(record, dict) else None
    date = datetime.fromtimestamp(mark.stat().st_mtime)
    if named:
        try:
            date = datetime.strptime(named[1], "%Y%m%d-%H%M%S")
        except ValueError:
            return None
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return Replaced(path, str(stage or "unknown"), mark.name == ARTIFACT, date, size)
