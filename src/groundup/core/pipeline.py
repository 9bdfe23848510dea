"""Check that a directory is the output of the required stage, and suggest the commands that produce this output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, STARTED, Artifact, read_intact
from groundup.core.errors import DataError, GroundupError
from groundup.core.files import read_json, shell_quoted

_OUTPUTS = {"collect": "a corpus", "tokenize": "token shards", "pretrain": "a model"}
_ORDER = tuple(_OUTPUTS)
_COMMANDS = {
    "collect": "groundup collect --folder {given} --out {out}",
    "tokenize": "groundup tokenize {given} --out {out}",
    "pretrain": "groundup pretrain {given} --out {out} --minutes 5",
}
_DIRECTORIES = {"collect": "corpus", "tokenize": "tokens", "pretrain": "base"}


def read_output(directory: Path, stage: str) -> Artifact:
    """Read the artifact of a directory that must be the finished, undamaged output of a stage.

    Args:
        directory: Output directory of the stage.
        stage: Name of the stage that must have written the directory.

    Raises:
        DataError: The directory is not a finished output of this stage. The message contains the commands to run first.
        FormatError: The artifact or an output file is damaged, or has another format version.
    """
    found = _stage_at(directory)
    finished = (directory / ARTIFACT).is_file() and found in (
        stage,
        None,
    )  # None means a damaged record; read_intact reports it
    if directory.exists() and not finished:
        raise wrong_input_error(directory, stage) or _unknown(directory, stage)
    return read_intact(directory)


def wrong_input_error(path: Path, wanted: str) -> DataError | None:
    """Return the error for a path that is not the output of the required stage, with the commands to run first.

    Args:
        path: Path that the user gave.
        wanted: Name of the required stage: "collect", "tokenize" or "pretrain".

    Returns:
        The error, or None if the path seems to be an output of this stage or of a later stage.
    """
    found, place = _stage_at(path), path
    if found is not None and not (path / ARTIFACT).is_file():
        fix = f"Run groundup {found.replace('.', ' ')} again with this --out until it finishes."
        return _error(path, f"the unfinished output of {found}", wanted, fix)
    if found is None:
        children = {stage: child for child in _children(path) if (stage := _stage_at(child)) in _ORDER}
        if wanted in children:
            return _error(path, "a run", wanted, f"Give {shell_quoted(children[wanted])}.")
        earlier = [stage for stage in _ORDER[: _ORDER.index(wanted)] if stage in children]
        if earlier:
            found, place = earlier[-1], children[earlier[-1]]
        elif (
            any((child / STARTED).is_file() for child in _children(path))
            or wanted == _ORDER[-1]
            or (path / "config.json").is_file()
        ):
            return None
    if found is None:
        return _error(path, "not the output of a stage", wanted, _first(path, _run_of(path), -1, wanted))
    if found not in _ORDER[: _ORDER.index(wanted)]:
        return None
    holds = _OUTPUTS[found] if place == path else f"a run with {_OUTPUTS[found]}"
    return _error(path, holds, wanted, _first(place, _parent(place), _ORDER.index(found), wanted))


def _first(given: Path, run: Path, done: int, wanted: str) -> str:
    """Return the instruction to run the stages after index `done`, up to and including the stage `wanted`."""
    commands = []
    for stage in _ORDER[done + 1 : _ORDER.index(wanted) + 1]:
        out = run / _DIRECTORIES[stage]
        commands.append(_COMMANDS[stage].format(given=shell_quoted(given), out=shell_quoted(out)))
        given = out
    return f"Run first: {' && '.join(commands)}"


def _run_of(text: Path) -> Path:
    """Return `runs/NAME` for a text. It is outside of the text's folder, because `collect` refuses to write into it."""
    folder, runs = text.resolve(), Path("runs")
    if runs.resolve().is_relative_to(folder):
        runs = _parent(text) / runs
    return runs / folder.stem


def _parent(path: Path) -> Path:
    """Return the directory that contains a path, also for "." and ".."."""
    return path.parent if path.name not in ("", "..") else Path(os.path.relpath(path.resolve().parent))


def _error(path: Path, holds: str, wanted: str, fix: str) -> DataError:
    return DataError(f"{path}: {holds}", rule=f"needed: {_OUTPUTS[wanted]} from groundup {wanted}", fix=fix)


def _unknown(directory: Path, wanted: str) -> DataError:
    stage = _stage_at(directory)
    holds = f"the output of {stage}" if stage else "not the output of a stage"
    return _error(directory, holds, wanted, f"Give the output directory of groundup {wanted}.")


def _stage_at(directory: Path) -> str | None:
    """Return the name of the stage that wrote, or started to write, a directory. None if it is unknown."""
    for name in (ARTIFACT, STARTED):
        path = directory / name
        if path.is_file():
            try:
                record = read_json(path)
            except GroundupError:  # read_intact reports this error later
                return None
            return str(record.get("stage")) if isinstance(record, dict) else None
    return None


def _children(directory: Path) -> Iterator[Path]:
    for child in sorted(directory.iterdir()) if directory.is_dir() else ():
        if child.is_dir() and not child.name.startswith(".") and REPLACED_INFIX not in child.name:
            yield child
