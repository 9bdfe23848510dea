"""One run of a stage over its output directory: what there is to do, where it is done, and how it is published.

A finished output is never touched before its successor is finished. A stage whose config or inputs changed works in
`.NAME.new-FINGERPRINT` next to the output NAME; `Work.finish` then renames the earlier output to `NAME.replaced-DATE`
and the new one to NAME. So a refused setting, an error, or a kill at any moment leaves the earlier output in its place.
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
    """One run of a stage. Make it with `begin`, end it with `finish`.

    Attributes:
        directory: Where the stage writes: the output directory, or one next to it while an earlier output is there.
        kept: File name -> checksum of what an interrupted run can use again, see `keep`; None: it was interrupted
            under an earlier release, which wrote none.
        target: The output directory.
    """

    directory: Path
    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: str
    state: State
    seconds_before: float
    held: TextIO | None = None  # the lock; gone with this value or with the process
    started: float = field(default_factory=time.monotonic)
    kept: dict[str, str] | None = field(default_factory=dict)
    target: Path | None = None  # None: `directory` itself
    console: Console | None = None
    release: Callable[[], object] = lambda: None  # after an error: leave no lock and no empty directory

    @property
    def seconds(self) -> float:
        """Wall time of this stage, earlier runs that were cut off included (up to their last `save_time`)."""
        return self.seconds_before + time.monotonic() - self.started

    def save_time(self) -> None:
        """Write down the time spent so far; long stages call it when they save their own progress."""
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
        """Write down the checksums of finished files, so that a resumed run uses them only while they are intact."""
        digests = digests_of(files, remember=False)
        self.kept = (self.kept or {}) | {
            path.relative_to(self.directory).as_posix(): digest for path, digest in digests.items()
        }
        self.save_time()

    def has(self, *files: Path) -> bool:
        """Whether files are those that an interrupted run of this work kept, intact."""
        kept = self.kept
        names = {path: path.relative_to(self.directory).as_posix() for path in files}
        return all(path.is_file() and (kept is None or name in kept) for path, name in names.items())

    def finish(self, facts: Mapping[str, Any], outputs: list[Path]) -> Artifact:
        """Write the artifact, and let the result take the place of an earlier one.

        Args:
            facts: What the stage found out.
            outputs: The files, inside `directory`, that make up the result.
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
        """Delete what this work wrote: after an error no half-made directory stays, and an earlier output does."""
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
    """Look at the output directory, decide what there is to do, and lock it for this process.

    The state of the work is "done" (same config and inputs, finished: read the artifact), "resumed" (same, cut
    off: partial files may be there) or "fresh" (nothing there yet). Another config's output stays where it is until
    `Work.finish`; the stage writes to `Work.directory`. A directory that is not ours, or another stage's, is refused.

    Args:
        directory: The output directory.
        stage: The stage's name.
        config: Everything that changes the output, as JSON values; leave paths of inputs and outputs out.
        inputs: Name -> digest of each input.
        shared: The directory is that of a run, with the outputs of other stages in it: nothing is refused or renamed,
            the work is done if its record and all its outputs are there, and the run has locked it.
        console: Is told where an earlier output went, or that nothing is to do.

    Raises:
        ConfigError: The directory cannot take this stage's output.
        FormatError: It is finished, but damaged.
        ResourceError: Another process works in it.
    """
    fingerprint = fingerprint_of(stage, config, inputs)
    if directory.is_file():
        raise ConfigError(f"--out {directory}: a file", rule="output goes to a directory", fix="Give another --out.")
    place, held = directory, None
    if not shared and directory.name in ("", ".."):  # a name is needed for its neighbors
        place = directory = directory.resolve()
    state: State = "fresh"
    if shared:
        made = read(directory) if (directory / ARTIFACT).is_file() else None
        whole = made is not None and not damaged_files(directory, made.outputs)
        state = "done" if whole and made and made.fingerprint == fingerprint else "fresh"
    else:
        place, state, held = _place_for(directory, stage, fingerprint, console)
    place.mkdir(parents=True, exist_ok=True)
    # Left by a process that was killed inside an atomic write; in a run's directory only files of the run itself.
    for leftover in list(place.glob(".*.tmp") if shared else place.rglob(".*.tmp")):
        # Missing, where it lay inside of one before it.
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    work = Work(place, stage, dict(config), dict(inputs), fingerprint, state, 0.0, held, console=console)
    if place != directory:
        work.target = directory
        work.release = weakref.finalize(work, _let_go, place, directory, held)
    if state == "resumed":
        _take_up(work, console)
    elif state == "fresh":
        work.save_time()
    elif console is not None:
        console.note(f"{directory} is finished, with these settings and inputs: nothing to do.")
    return work


def working_directory(directory: Path) -> Path:
    """Return where a process that is running now writes the output of a directory: there, or next to it."""
    if (directory / ARTIFACT).is_file() and lock_owner(directory) is not None:
        began = [path for path in _new_ones(directory) if (path / STARTED).is_file()]
        return max(began, key=lambda path: (path / STARTED).stat().st_mtime_ns, default=directory)
    return directory


def _place_for(
    directory: Path, stage: str, fingerprint: str, console: Console | None
) -> tuple[Path, State, TextIO | None]:
    """Where the work is done, what there is of it, and the lock."""
    old = _state_of(directory, stage, fingerprint)
    held = None if old == "done" else lock_directory(directory, fix="choose another --out")
    if finished := next((path for path in _new_ones(directory) if (path / ARTIFACT).is_file()), None):
        # A process was killed between writing its record and renaming the directory.
        held = held or lock_directory(directory, fix="choose another --out")
        _publish(finished, directory, console)
        held.close()
        return _place_for(directory, stage, fingerprint, console)
    for other in _new_ones(directory):
        if _is_empty(other):
            shutil.rmtree(other, ignore_errors=True)
    if old != "another":
        return directory, old, held
    assert held is not None
    if _is_empty(directory):  # a try that failed before it made anything
        held.close()
        shutil.rmtree(directory)
        return directory, "fresh", lock_directory(directory, fix="choose another --out")
    place = directory.with_name(f".{directory.name}{NEW}{fingerprint[:_FINGERPRINT_CHARS]}")
    state = _state_of(place, stage, fingerprint)
    return place, "fresh" if state == "another" else state, held


def _state_of(directory: Path, stage: str, fingerprint: str) -> Literal["fresh", "resumed", "done", "another"]:
    """What is in a stage's directory; "another": the output of another config or of other inputs.

    Raises:
        ConfigError: It holds what no stage wrote, or another stage.
        FormatError: The output is finished, but damaged.
    """
    if not directory.exists() or not any(path.name != LOCK for path in directory.iterdir()):
        return "fresh"
    mark = next((p for p in (directory / ARTIFACT, directory / STARTED) if p.is_file()), None)
    if mark is None:
        raise ConfigError(
            f"--out {directory}: holds files that groundup did not write",
            rule="output goes to a new or empty directory",
            fix="Give another --out.",
        )
    made = read_record(mark) if mark.name == ARTIFACT else None
    begun = _read_started(mark) if made is None else {"stage": made.stage, "fingerprint": made.fingerprint}
    if begun.get("stage") != stage:
        raise ConfigError(
            f"--out {directory}: holds what {begun.get('stage')} left",
            rule=f"a directory is the output of one stage, and here {stage} would take its place",
            fix="Give another --out.",
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


def _take_up(work: Work, console: Console | None) -> None:
    """Read what an interrupted run wrote down; files that are damaged since are deleted, to be made again."""
    begun = _read_started(work.directory / STARTED)
    work.seconds_before, kept = begun["seconds"], begun.get("kept")
    if kept is None:
        work.kept = None
        return
    damaged = damaged_files(work.directory, kept)
    for name, trouble in damaged.items():
        if (work.directory / name).is_file():
            (work.directory / name).unlink()
            if console is not None:
                console.warn(f"{work.directory / name}: {trouble}. It is made again.")
    work.kept = {name: digest for name, digest in kept.items() if name not in damaged}


def _publish(place: Path, target: Path, console: Console | None) -> None:
    """Let a finished output take the place of an earlier one, which is renamed."""
    if target.exists():
        aside = _unused(f"{target}{REPLACED_INFIX}{time.strftime('%Y%m%d-%H%M%S')}")
        (target / LOCK).unlink(missing_ok=True)
        target.rename(aside)
        if console is not None:
            console.note(f"What was in {target} is now in {aside}.")
    place.rename(target)
    sync_directory(target.parent)


def _let_go(place: Path, target: Path, held: TextIO | None) -> None:
    """After work that was not finished: leave no directory that holds nothing, and no lock."""
    if held is None or held.closed:
        return
    if _is_empty(place):
        shutil.rmtree(place, ignore_errors=True)
    (target / LOCK).unlink(missing_ok=True)
    held.close()


def _new_ones(directory: Path) -> list[Path]:
    """Unfinished successors of an output."""
    parent = directory.parent
    start = f".{directory.name}{NEW}"
    return sorted(path for path in parent.iterdir() if path.name.startswith(start)) if parent.is_dir() else []


def _is_empty(directory: Path) -> bool:
    return {path.name for path in directory.iterdir()} <= {STARTED, LOCK}


def _unused(name: str) -> Path:
    candidates = (Path(name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
    return next(path for path in candidates if not path.exists())
