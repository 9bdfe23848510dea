"""Execution of a stage in its output directory: state, working directory, and replacement of the earlier output.

A finished output stays until the new one is finished. If config or inputs changed, the stage works in
`.NAME.new-FINGERPRINT` next to the output NAME. `Work.finish` then renames the earlier output to `NAME.replaced-DATE`
and the new one to NAME. An error or a kill at any time therefore keeps the earlier output.
"""

from __future__ import annotations

import itertools
import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from groundup.core.artifact.record import (
    ARTIFACT,
    REPLACED_INFIX,
    STARTED,
    Artifact,
    damage_error,
    fingerprint_of,
    read,
    read_record,
    record,
    write_record,
)
from groundup.core.checksums import damaged_files, digests_of, read_checked_json, write_checked_json
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.files import sync_directory
from groundup.core.locks import LOCK, lock_directory, lock_owner

NEW = ".new-"
_FINGERPRINT_CHARS = 12
_LOGS = ("metrics.jsonl", "samples.jsonl")
State = Literal["fresh", "resumed", "done"]


@dataclass(slots=True, weakref_slot=True)
class Work:
    """One execution of a stage, from `begin` to `finish`.

    Attributes:
        directory: Working directory: the output directory, or one next to it if an earlier output exists.
        stage: Name of the stage.
        config: Config as given.
        inputs: Name -> digest of each input.
        fingerprint: Digest of config and inputs.
        state: "fresh", "resumed" or "done".
        seconds_before: Wall time of interrupted executions.
        held: Lock file.
        started: Start time of this execution.
        kept: File name -> checksum of finished files that a resumed run can use, see `keep`. None if an older release
            was interrupted, which wrote no checksums.
        target: Output directory, if it differs from `directory`.
        console: Console for messages.
        release: Removes the lock and an empty working directory, after an error.
    """

    directory: Path
    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: str
    state: State
    seconds_before: float
    held: TextIO | None = None
    started: float = field(default_factory=time.monotonic)
    kept: dict[str, str] | None = field(default_factory=dict)
    target: Path | None = None
    console: Console | None = None
    release: Callable[[], object] = lambda: None

    @property
    def seconds(self) -> float:
        """Wall time of this stage in seconds, including interrupted runs up to their last `save_time`."""
        return self.seconds_before + time.monotonic() - self.started

    def save_time(self) -> None:
        """Save the wall time. Long stages call this when they save a checkpoint."""
        write_checked_json(
            self.directory / STARTED,
            {
                "stage": self.stage,
                "fingerprint": self.fingerprint,
                "seconds": round(self.seconds, 3),
                "kept": self.kept or {},
            },
        )

    def keep(self, files: Iterable[Path]) -> None:
        """Save the checksums of finished files. A resumed run uses these files if they are undamaged.

        Args:
            files: Files in `directory`.
        """
        digests = digests_of(files, remember=False)
        self.kept = (self.kept or {}) | {
            path.relative_to(self.directory).as_posix(): digest for path, digest in digests.items()
        }
        self.save_time()

    def has(self, *files: Path) -> bool:
        """Return whether an interrupted run has finished these files, and they are undamaged.

        Args:
            *files: Files in `directory`.
        """
        kept = self.kept
        names = {path: path.relative_to(self.directory).as_posix() for path in files}
        return all(path.is_file() and (kept is None or name in kept) for path, name in names.items())

    def finish(self, facts: Mapping[str, Any], outputs: list[Path]) -> Artifact:
        """Write the artifact, and replace an earlier output.

        Args:
            facts: Results for the report.
            outputs: Output files in `directory`.

        Returns:
            The artifact.
        """
        logs = [path for name in _LOGS if (path := self.directory / name).is_file()]
        artifact = record(self.stage, self.config, self.inputs, self.directory, outputs, facts, self.seconds, logs)
        write_record(self.directory / ARTIFACT, artifact)
        (self.directory / STARTED).unlink(missing_ok=True)
        if self.target is not None:
            _publish(self.directory, self.target, self.console)
            self.directory, self.target = self.target, None
        if self.held is not None:
            self.held.close()
            (self.directory / LOCK).unlink(missing_ok=True)
        return artifact

    def abandon(self) -> None:
        """Delete the working directory after an error. An earlier output is kept."""
        if self.held is not None:
            self.held.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.target is not None:
            (self.target / LOCK).unlink(missing_ok=True)


def begin(
    directory: Path,
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    shared: bool = False,
    console: Console | None = None,
) -> Work:
    """Check the output directory, determine the state of the work, and lock the directory for this process.

    The state is "done" (finished with the same config and inputs), "resumed" (interrupted with the same config and
    inputs, with partial files) or "fresh". The output of another config is kept until `Work.finish`; the stage writes
    to `Work.directory`.

    Args:
        directory: Output directory.
        stage: Name of the stage.
        config: All settings that change the output, as JSON values, without paths of inputs and outputs.
        inputs: Name -> digest of each input.
        shared: The directory belongs to a run, which has locked it, and has outputs of other stages.
        console: Console for messages about a finished or replaced output.

    Returns:
        The work.

    Raises:
        ConfigError: The directory has files of another stage, or files that groundup did not write.
        FormatError: The output is finished, but damaged.
        ResourceError: Another process uses the directory.
    """
    fingerprint = fingerprint_of(stage, config, inputs)
    if directory.is_file():
        raise ConfigError(f"--out {directory} is a file", fix="Give a directory.")
    place, held = directory, None
    if not shared and directory.name in ("", ".."):  # the name is needed for directories next to it
        place = directory = directory.resolve()
    state: State = "fresh"
    if shared:
        made = read(directory) if (directory / ARTIFACT).is_file() else None
        undamaged = made is not None and not damaged_files(directory, made.outputs)
        state = "done" if undamaged and made and made.fingerprint == fingerprint else "fresh"
    else:
        place, state, held = _working_directory_for(directory, stage, fingerprint, console)
    place.mkdir(parents=True, exist_ok=True)
    # Temporary files of a killed process; in a run's directory, only its own files.
    for leftover in list(place.glob(".*.tmp") if shared else place.rglob(".*.tmp")):
        # It may be in a directory that is already deleted.
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    work = Work(place, stage, dict(config), dict(inputs), fingerprint, state, 0.0, held, console=console)
    if place != directory:
        work.target = directory
        work.release = weakref.finalize(work, _release, place, directory, held)
    if state == "resumed":
        _resume(work, console)
    elif state == "fresh":
        work.save_time()
    elif console is not None:
        console.note(f"{directory} is already finished with these settings and inputs: nothing to do.")
    return work


def working_directory(directory: Path) -> Path:
    """Return the working directory of the process that currently writes an output.

    Args:
        directory: Output directory.

    Returns:
        `directory`, or the directory next to it if an earlier output exists.
    """
    if (directory / ARTIFACT).is_file() and lock_owner(directory) is not None:
        began = [path for path in _unpublished(directory) if (path / STARTED).is_file()]
        return max(began, key=lambda path: (path / STARTED).stat().st_mtime_ns, default=directory)
    return directory


def _working_directory_for(
    directory: Path, stage: str, fingerprint: str, console: Console | None
) -> tuple[Path, State, TextIO | None]:
    """Return the working directory, the state of the work, and the lock."""
    old = _state_of(directory, stage, fingerprint)
    held = None if old == "done" else lock_directory(directory, fix="choose another --out")
    if finished := next((path for path in _unpublished(directory) if (path / ARTIFACT).is_file()), None):
        # A process was killed after it wrote the record and before it renamed the directory.
        held = held or lock_directory(directory, fix="choose another --out")
        _publish(finished, directory, console)
        held.close()
        return _working_directory_for(directory, stage, fingerprint, console)
    for other in _unpublished(directory):
        if _is_empty(other):
            shutil.rmtree(other, ignore_errors=True)
    if old != "another":
        return directory, old, held
    assert held is not None
    if _is_empty(directory):  # an earlier attempt failed before it wrote a file
        held.close()
        shutil.rmtree(directory)
        return directory, "fresh", lock_directory(directory, fix="choose another --out")
    place = directory.with_name(f".{directory.name}{NEW}{fingerprint[:_FINGERPRINT_CHARS]}")
    state = _state_of(place, stage, fingerprint)
    return place, "fresh" if state == "another" else state, held


def _state_of(directory: Path, stage: str, fingerprint: str) -> Literal["fresh", "resumed", "done", "another"]:
    """Return the state of a directory; "another" is the output of another config or other inputs.

    Raises:
        ConfigError: It has files of another stage, or files that groundup did not write.
        FormatError: The output is finished, but damaged.
    """
    if not directory.exists() or not any(path.name != LOCK for path in directory.iterdir()):
        return "fresh"
    record_path = next((p for p in (directory / ARTIFACT, directory / STARTED) if p.is_file()), None)
    if record_path is None:
        raise ConfigError(
            f"--out {directory} has files that groundup did not write",
            fix="Give a new or empty directory.",
        )
    made = read_record(record_path) if record_path.name == ARTIFACT else None
    begun = _read_started(record_path) if made is None else {"stage": made.stage, "fingerprint": made.fingerprint}
    if begun.get("stage") != stage:
        raise ConfigError(
            f"--out {directory} is the output of {begun.get('stage')}",
            fix=f"Give another directory for {stage}.",
        )
    if begun.get("fingerprint") != fingerprint:
        return "another"
    if made is None:
        return "resumed"
    damaged = damaged_files(directory, made.outputs)
    if any((directory / name).is_file() for name in damaged):
        raise damage_error(directory, damaged)
    return "another" if damaged else "done"


def _read_started(path: Path) -> dict[str, Any]:
    return read_checked_json(path, fix=f"Delete {path.parent} and run the same command again.")


def _resume(work: Work, console: Console | None) -> None:
    """Read the state of an interrupted run, and delete damaged files so that they are written again."""
    begun = _read_started(work.directory / STARTED)
    work.seconds_before, kept = begun["seconds"], begun.get("kept")
    if kept is None:
        work.kept = None
        return
    damaged = damaged_files(work.directory, kept)
    for name, problem in damaged.items():
        if (work.directory / name).is_file():
            (work.directory / name).unlink()
            if console is not None:
                console.warn(f"{work.directory / name}: {problem}; writing it again")
    work.kept = {name: digest for name, digest in kept.items() if name not in damaged}


def _publish(place: Path, target: Path, console: Console | None) -> None:
    """Rename a finished output to its final name, after renaming an earlier output."""
    if target.exists():
        aside = _unused(f"{target}{REPLACED_INFIX}{time.strftime('%Y%m%d-%H%M%S')}")
        (target / LOCK).unlink(missing_ok=True)
        target.rename(aside)
        if console is not None:
            console.note(f"Moved the earlier output of {target} to {aside}.")
    place.rename(target)
    sync_directory(target.parent)


def _release(place: Path, target: Path, held: TextIO | None) -> None:
    """Remove the lock and an empty working directory, after unfinished work."""
    if held is None or held.closed:
        return
    if _is_empty(place):
        shutil.rmtree(place, ignore_errors=True)
    (target / LOCK).unlink(missing_ok=True)
    held.close()


def _unpublished(directory: Path) -> list[Path]:
    """Return the working directories next to an output."""
    parent = directory.parent
    start = f".{directory.name}{NEW}"
    return sorted(path for path in parent.iterdir() if path.name.startswith(start)) if parent.is_dir() else []


def _is_empty(directory: Path) -> bool:
    return {path.name for path in directory.iterdir()} <= {STARTED, LOCK}


def _unused(name: str) -> Path:
    candidates = (Path(name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
    return next(path for path in candidates if not path.exists())
