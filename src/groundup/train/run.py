"""A training run on all ranks, with its output directory, its wall time and its saved plan."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.artifact import ARTIFACT, Work, begin
from groundup.core.checksums import read_checked_json, write_checked_json
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.distributed.ranks import Ranks, join_ranks

if TYPE_CHECKING:
    from groundup.kernels import Machine
    from groundup.train.planner import Plan

CHECKPOINTS = "checkpoints"
PLAN = "plan.json"
PLAN_VERSION = 5


@dataclass(slots=True)
class TrainingRun:
    """A training run on all ranks, created by `training_run`.

    Attributes:
        work: Record of the run, with its directory, fingerprint and wall time.
        ranks: Ranks that train together.
        console: Console, which prints only on the first rank.
    """

    work: Work
    ranks: Ranks
    console: Console

    @property
    def directory(self) -> Path:
        """Output directory."""
        return self.work.directory

    @property
    def finished(self) -> bool:
        """Whether this run was already finished by an earlier process."""
        return self.work.state == "done"

    @property
    def plan_file(self) -> Path:
        """Path of the saved plan."""
        return self.directory / PLAN

    def saved_plan(self) -> dict[str, Any] | None:
        """Return the contents of `plan.json`, the same on every rank, or None if there is no saved plan."""
        here = self.ranks.first and self.plan_file.is_file()
        saved: dict[str, Any] | None = self.ranks.broadcast_object(read_plan(self.plan_file) if here else None)
        return saved

    def save_plan(self, **values: Any) -> None:
        """Add values to `plan.json`. Every rank must call this method, which returns after the file is written."""
        if self.ranks.first:
            known = read_plan(self.plan_file) if self.plan_file.is_file() else {}
            write_checked_json(self.plan_file, known | {"version": PLAN_VERSION} | values)
        self.ranks.barrier()

    def saved_machine(self) -> Machine | None:
        """Return the machine of the saved plan, or None if none is saved. Warn if results will not be bit-identical."""
        from groundup.kernels import Machine

        saved = self.saved_plan() or {}
        if "machine" not in saved:
            return None
        machine = Machine.from_json(saved["machine"])
        if here := machine.other_processor():
            self.console.warn(
                f"The run started on another processor ({machine.processor}), which rounds differently from this one "
                f"({here}). "
                "The result is not bit-identical to that of an uninterrupted run."
            )
        return machine

    def load_or_make_plan(self, make: Callable[[], tuple[Machine, Plan]]) -> tuple[Machine, Plan, bool]:
        """Return the saved machine and plan, or make them if the run is new.

        Args:
            make: Measures the machine and makes a new plan, on every rank.

        Returns:
            The machine, the plan, and whether they were made now.
        """
        from groundup.train.planner import Plan

        saved, machine = self.saved_plan(), self.saved_machine()
        if saved is None or machine is None:
            return *make(), True
        return machine, Plan.from_json(saved["plan"]), False


@contextmanager
def training_run(
    directory: Path,
    stage: str = "train",
    keys: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    console: Console | None = None,
) -> Iterator[TrainingRun]:
    """Start or resume a training run on all ranks. Only the first rank writes files and prints messages.

    At the end of the `with` block, all other ranks wait for the first rank.

    Args:
        directory: Output directory, see `groundup.core.artifact.begin`.
        stage: Name of the stage that is recorded in `artifact.json`.
        keys: Settings on which the result depends.
        inputs: Maps the name of each input to its digest.
        console: Console to print to.

    Yields:
        The run.

    Raises:
        ConfigError: The directory contains an unfinished run with a plan of another version.
        ResourceError: Another process uses the directory.
    """
    console, keys, inputs = console or Console(), keys or {}, inputs or {}
    with ExitStack() as stack:
        ranks = stack.enter_context(join_ranks())
        if ranks.first:
            require_current_plan(directory)
            work = begin(directory, stage, keys, inputs, console=console)
            stack.callback(work.release)
            require_current_plan(work.directory)  # next to `directory`, if that has an earlier output
            ranks.broadcast_object([work.fingerprint, work.state, work.seconds, str(work.directory)])
        else:
            console = Console(quiet=True, stream=stack.enter_context(Path(os.devnull).open("w")))
            fingerprint, state, seconds, place = ranks.broadcast_object([])
            work = Work(Path(place), stage, dict(keys), dict(inputs), fingerprint, state, seconds)
        yield TrainingRun(work, ranks, console)
        ranks.broadcast_object("done")


def require_current_plan(directory: Path) -> None:
    """Raise an error if the directory contains an unfinished run with a plan of another version.

    Args:
        directory: Output directory of the run.

    Raises:
        ConfigError: The version of the saved plan is not the current version.
    """
    path = directory / PLAN
    if (directory / ARTIFACT).is_file() or not path.is_file():
        return
    version = read_plan(path).get("version")
    if version != PLAN_VERSION:
        raise ConfigError(
            f"{path}: version {version} of an unfinished run, but this release resumes version {PLAN_VERSION}",
            fix="Finish the run with the release that started it, or start again: use another --out, or delete "
            f"{directory}.",
        )


def read_plan(path: Path) -> dict[str, Any]:
    """Read a `plan.json`.

    Args:
        path: File to read.

    Raises:
        FormatError: The file is damaged.
    """
    return read_checked_json(path, fix=f"Restore it from a copy, or delete {path.parent} and run the command again.")


def drop_checkpoints(directory: Path) -> None:
    """Delete the checkpoints of a finished run.

    Call this after the artifact is written, because a process that is killed before needs the checkpoints to resume. If
    the process is killed during the deletion, the next run of the command deletes the remaining checkpoints.

    Args:
        directory: Output directory of the run.
    """
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
