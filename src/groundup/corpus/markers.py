"""Reading and writing of the markers of finished tasks.

A marker is a JSON file with the checksums of the files that a task wrote. A resumed build verifies the checksums.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from groundup.core.checksums import MISSING, damaged_files, read_checked_json, write_checked_json
from groundup.core.errors import FormatError
from groundup.core.files import file_digest

TABLE_MARKER = "finished.json"  # marker of a table of columns, inside the directory of the table
_OUTPUTS = "outputs"
_INPUTS_REMOVED = "inputs_removed"
_FIX = "Delete the directory `parts` of the corpus, then run `groundup collect` again."


def write_marker(
    path: Path, outputs: Iterable[Path], record: Mapping[str, Any] | None = None, *, removes_inputs: bool = False
) -> None:
    """Write the marker of a finished task. A task must write its marker after all other files.

    Args:
        path: Path of the marker.
        outputs: Files that the task wrote, in the directory of the marker or in the parent directory.
        record: Additional values to store in the marker, e.g. counts.
        removes_inputs: Whether the input files of the task are removed after the marker is written.
    """
    digests = {os.path.relpath(each, path.parent): file_digest(each) for each in outputs}
    write_checked_json(path, {**(record or {}), _OUTPUTS: digests, _INPUTS_REMOVED: removes_inputs})


def read_marker(path: Path) -> dict[str, Any]:
    """Return the additional values that are stored in a marker (the argument `record` of `write_marker`).

    Raises:
        FormatError: The marker is damaged.
    """
    record = read_checked_json(path, fix=_FIX)
    for key in (_OUTPUTS, _INPUTS_REMOVED):
        record.pop(key, None)
    return record


def discard_damaged(parts: Path) -> list[Path]:
    """Remove the markers of tasks whose output is damaged, so that these tasks run again.

    A missing output file does not count as damaged, because runs are removed after they are consolidated into one run.
    If a consolidated run is damaged, the markers of the tasks that wrote the removed runs are removed too.

    Returns:
        Paths of the damaged files.
    """
    damaged: list[Path] = []
    missing: list[Path] = []  # markers of tasks of which an output file is missing
    restart = False
    for marker in sorted([*parts.glob("*.json"), *parts.glob(f"*/{TABLE_MARKER}")]):
        found, removes_inputs = _check(marker)
        wrong = [path for path, what in found.items() if what != MISSING]
        damaged += wrong
        if wrong:
            restart |= removes_inputs
            _discard(marker)
        elif found:
            missing.append(marker)
    for marker in missing if restart else ():
        _discard(marker)
    return damaged


def _check(marker: Path) -> tuple[dict[Path, str], bool]:
    """Return the damaged or missing output files of a task with their problems, and whether its inputs were removed."""
    try:
        record = read_checked_json(marker, fix=_FIX)
    except FormatError:
        return {marker: "damaged"}, True
    found = damaged_files(marker.parent, record.get(_OUTPUTS, {}), remember=False)
    return {marker.parent / name: what for name, what in found.items()}, bool(record.get(_INPUTS_REMOVED))


def _discard(marker: Path) -> None:
    if marker.name == TABLE_MARKER:
        shutil.rmtree(marker.parent)
    else:
        marker.unlink()
