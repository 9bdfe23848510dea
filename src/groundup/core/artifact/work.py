"""Execution of a stage in its output directory: state, working directory, and replacement of the earlier output.

A finished output is kept until the new output is finished. If the config or the inputs changed, the stage writes to the
directory `.NAME.new-FINGERPRINT` next to the output directory NAME. `Work.finish` then renames the earlier output to
`NAME.replaced-DATE` and the new output to NAME. The earlier output is therefore kept if the stage fails or the process
is killed.
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
    """One execution of a stage, from `begin` to `Work.finish`.

    Attributes:
        directory: Working directory. It is the output directory, or a directory next to it if an earlier output exists.
        stage: Name of the stage.
        config: Config of the stage.
        inputs: Maps the name of each input to its digest.
        fingerprint: Digest of config and inputs.
        state: "fresh" for a new execution, "resumed" after an interruption, or "done" if the output is already
            finished.
        seconds_before: Wall time of earlier, interrupted executions in seconds.
        held: Open lock file of the directory.
        started: Time at which this execution started.
        kept: Maps the names of files that an interrupted execution finished to their checksums (see `keep`).
        target: Output directory, if it is not the working directory.
        console: Console for messages.
        release: Function that removes the lock, and the working directory if it is empty, after an error.
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
    kept: dict[str, str] = field(default_factory=dict)
    target: Path | None = None
    console: Console | None = None
    release: Callable[[], object] = lambda: None

    @property
    def seconds(self) -> float:
        """Wall time of this stage in seconds, including the saved time of interrupted executions (see `save_time`)."""
        return self.seconds_before + time.monotonic() - self.started

    def save_time(self) -> None:
        """Save the wall time so far. Long stages call this method when they save a checkpoint."""
        write_checked_json(
            self.directory / STARTED,
            {
                "stage": self.stage,
                "fingerprint": self.fingerprint,
                "seconds": round(self.seconds, 3),
                "kept": self.kept,
            },
        )

    def keep(self, files: Iterable[Path]) -> None:
        """Save the checksums of finished files. A resumed execution uses these files if they are undamaged.

        Args:
            files: Finished files in `directory`.
        """
        digests = digests_of(files, remember=False)
        self.kept |= {path.relative_to(self.directory).as_posix(): digest for path, digest in digests.items()}
        self.save_time()

    def has(self, *files: Path) -> bool:
        """Return whether an interrupted execution finished these files and they are still undamaged.

        Args:
            *files: Files in `directory` to check.
        """
        return all(path.is_file() and path.relative_to(self.directory).as_posix() in self.kept for path in files)

    def finish(self, facts: Mapping[str, Any], outputs: list[Path]) -> Artifact:
        """Write the artifact, and replace an earlier output if one exists.

        Args:
            facts: Results for the report.
            outputs: Output files in `directory`.

        Returns:
            The artifact of the finished stage.
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
    """Check and lock the output directory, and determine whether the stage must run.

    The state of the returned work is "done" if the stage finished with the same config and inputs. It is "resumed" if
    the stage was interrupted with the same config and inputs, otherwise "fresh". An output with another config or
    other inputs is kept until `Work.finish`. The stage writes its files to `Work.directory`.

    Args:
        directory: Output directory of the stage.
        stage: Name of the stage.
        config: All settings that influence the output, as JSON values, without paths of inputs and outputs.
        inputs: Maps the name of each input to its digest.
        shared: Whether the directory belongs to a run, which locks it and stores outputs of other stages in it.
        console: Console for messages about a finished or replaced output.

    Returns:
        The work, whose state shows whether the stage must run.

    Raises:
        ConfigError: The directory contains files of another stage, or files that groundup did not write.
        FormatError: The output is finished, but a file is damaged.
        ResourceError: Another process holds the lock of the directory.
    """
    fingerprint = fingerprint_of(stage, config, inputs)
    if directory.is_file():
        raise ConfigError(f"--out {directory} is a file", fix="Give a directory.")
    place, held = directory, None
    if not shared and directory.name in ("", ".."):  # names of other directories are derived from this name
        place = directory = directory.resolve()
    state: State = "fresh"
    if shared:
        made = read(directory) if (directory / ARTIFACT).is_file() else None
        undamaged = made is not None and not damaged_files(directory, made.outputs)
        state = "done" if undamaged and made and made.fingerprint == fingerprint else "fresh"
    else:
        place, state, held = _working_directory_for(directory, stage, fingerprint, console)
    place.mkdir(parents=True, exist_ok=True)
    # Delete temporary files of a killed process. In a run's directory, delete only the run's own temporary files.
    for leftover in list(place.glob(".*.tmp") if shared else place.rglob(".*.tmp")):
        # The parent directory of the file may already have been deleted in this loop.
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
    """Return the directory to which a running stage currently writes.

    Args:
        directory: Output directory of the stage.

    Returns:
        The output directory, or the working directory next to it if an earlier output exists.
    """
    if (directory / ARTIFACT).is_file() and lock_owner(directory) is not None:
        began = [path for path in _unpublished(directory) if (path / STARTED).is_file()]
        return max(began, key=lambda path: (path / STARTED).stat().st_mtime_ns, default=directory)
    return directory


def _working_directory_for(
    directory: Path, stage: str, fingerprint: str, console: Console | None
) -> tuple[Path, State, TextIO | None]:
    """Return the working directory, the state of the work, and the lock file."""
    old = _state_of(directory, stage, fingerprint)
    held = None if old == "done" else lock_directory(directory, fix="choose another --out")
    if finished := next((path for path in _unpublished(directory) if (path / ARTIFACT).is_file()), None):
        # A process was killed after it wrote the artifact and before it renamed the directory.
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
    if _is_empty(directory):  # an earlier execution failed before it wrote a file
        held.close()
        shutil.rmtree(directory)
        return directory, "fresh", lock_directory(directory, fix="choose another --out")
    place = directory.with_name(f".{directory.name}{NEW}{fingerprint[:_FINGERPRINT_CHARS]}")
    state = _state_of(place, stage, fingerprint)
    return place, "fresh" if state == "another" else state, held


def _state_of(directory: Path, stage: str, fingerprint: str) -> Literal["fresh", "resumed", "done", "another"]:
    """Return the state of a directory. "another" means that it has the output of another config or other inputs.

    Raises:
        ConfigError: The directory contains files of another stage, or files that groundup did not write.
        FormatError: The output is finished, but a file is damaged.
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
    """Read the state of an interrupted execution, and delete damaged files. The stage then writes them again."""
    begun = _read_started(work.directory / STARTED)
    work.seconds_before, kept = begun["seconds"], begun["kept"]
    damaged = damaged_files(work.directory, kept)
    for name, problem in damaged.items():
        if (work.directory / name).is_file():
            (work.directory / name).unlink()
            if console is not None:
                console.warn(f"{work.directory / name}: {problem}; writing it again")
    work.kept = {name: digest for name, digest in kept.items() if name not in damaged}


def _publish(place: Path, target: Path, console: Console | None) -> None:
    """Rename a finished output to its final name. If an earlier output exists, rename that output first."""
    if target.exists():
        aside = _unused(f"{target}{REPLACED_INFIX}{time.strftime('%Y%m%d-%H%M%S')}")
        (target / LOCK).unlink(missing_ok=True)
        target.rename(aside)
        if console is not None:
            console.note(f"Moved the earlier output of {target} to {aside}.")
    place.rename(target)
    sync_directory(target.parent)


def _release(place: Path, target: Path, held: TextIO | None) -> None:
    """Release the lock, and delete the working directory if it is empty, after a stage failed."""
    if held is None or held.closed:
        return
    if _is_empty(place):
        shutil.rmtree(place, ignore_errors=True)
    (target / LOCK).unlink(missing_ok=True)
    held.close()


def _unpublished(directory: Path) -> list[Path]:
    """Return the working directories next to an output directory."""
    parent = directory.parent
    start = f".{directory.name}{NEW}"
    return sorted(path for path in parent.iterdir() if path.name.startswith(start)) if parent.is_dir() else []


def _is_empty(directory: Path) -> bool:
    return {path.name for path in directory.iterdir()} <= {STARTED, LOCK}


def _unused(name: str) -> Path:
    candidates = (Path(name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
    return next(path for path in candidates if not path.exists())
