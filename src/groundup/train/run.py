"""A training run on all ranks: its directory, its clock, and its plan on disk."""

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
from groundup.distributed.ranks import Ranks, joined

if TYPE_CHECKING:
    from groundup.kernels import Machine
    from groundup.train.planner import Plan

CHECKPOINTS = "checkpoints"
PLAN = "plan.json"
PLAN_VERSION = 2  # since then the settings that a plan was made of have absolute learning rates


@dataclass(slots=True)
class TrainingRun:
    """One training run on all ranks, see `training_run`.

    Attributes:
        work: The record of the run: directory, fingerprint, wall time.
        ranks: The processes that train together.
        console: Quiet on all ranks but the first.
    """

    work: Work
    ranks: Ranks
    console: Console

    @property
    def directory(self) -> Path:
        """Where the run writes."""
        return self.work.directory

    @property
    def finished(self) -> bool:
        """Whether an earlier process finished this run."""
        return self.work.state == "done"

    @property
    def plan_file(self) -> Path:
        """Where the plan is."""
        return self.directory / PLAN

    def saved_plan(self) -> dict[str, Any] | None:
        """Return the `plan.json` that this run began with, the same on every rank; None at its first start."""
        here = self.ranks.first and self.plan_file.is_file()
        saved: dict[str, Any] | None = self.ranks.broadcast_object(read_plan(self.plan_file) if here else None)
        return saved

    def save_plan(self, **values: Any) -> None:
        """Write values into `plan.json`, next to those that it has; returns when all ranks may read it."""
        if self.ranks.first:
            known = read_plan(self.plan_file) if self.plan_file.is_file() else {}
            write_checked_json(self.plan_file, known | {"version": PLAN_VERSION} | values)
        self.ranks.barrier()

    def plan(self, make: Callable[[], tuple[Machine, Plan]]) -> tuple[Machine, Plan, bool]:
        """Return the machine and the plan that the run began with, and whether they are new.

        Args:
            make: Makes a new plan; called on every rank.
        """
        from groundup.kernels import Machine
        from groundup.train.planner import Plan

        saved = self.saved_plan()
        if saved is None:
            return *make(), True
        return Machine.from_json(saved["machine"]), Plan.from_json(saved["plan"]), False


@contextmanager
def training_run(
    directory: Path,
    stage: str = "train",
    keys: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    console: Console | None = None,
) -> Iterator[TrainingRun]:
    """Begin or resume a training run on all ranks. The first holds the directory, and it alone writes and prints.

    The other ranks leave the block after the first.

    Args:
        directory: The output directory, see `groundup.core.artifact.begin`.
        stage: Name of the stage, for `artifact.json`.
        keys: Settings that the result depends on.
        inputs: Name of each input and its digest.

    Raises:
        ConfigError: An unfinished run of an earlier release is there.
        ResourceError: Another process uses the directory.
    """
    console, keys, inputs = console or Console(), keys or {}, inputs or {}
    with ExitStack() as stack:
        ranks = stack.enter_context(joined())
        if ranks.first:
            require_current_plan(directory)
            work = begin(directory, stage, keys, inputs, console=console)
            stack.callback(work.release)
            ranks.broadcast_object([work.fingerprint, work.state, work.seconds, str(work.directory)])
        else:
            console = Console(quiet=True, stream=stack.enter_context(Path(os.devnull).open("w")))
            fingerprint, state, seconds, place = ranks.broadcast_object([])
            work = Work(Path(place), stage, dict(keys), dict(inputs), fingerprint, state, seconds)
        yield TrainingRun(work, ranks, console)
        ranks.broadcast_object("done")


def require_current_plan(directory: Path) -> None:
    """Refuse to resume a run of an earlier release: the same settings mean other learning rates now.

    Raises:
        ConfigError: an unfinished run without a version, or with a later one.
    """
    path = directory / PLAN
    if (directory / ARTIFACT).is_file() or not path.is_file():
        return
    version = read_plan(path).get("version", 1)
    if version < PLAN_VERSION:
        raise ConfigError(
            f"{path}: an unfinished run of an earlier release (version {version})",
            rule="its learning rates were multiples of the default ones; now settings give absolute rates",
            fix=f"Finish it with the release that began it, or start again: give another --out, or delete {directory}.",
        )
    if version > PLAN_VERSION:
        raise ConfigError(
            f"{path}: version {version}",
            rule=f"this release reads plans up to version {PLAN_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )


def read_plan(path: Path) -> dict[str, Any]:
    """Read a `plan.json`.

    Raises:
        FormatError: It is damaged.
    """
    return read_checked_json(path, fix=f"Restore it from a copy, or delete {path.parent} and run the command again.")


def drop_checkpoints(directory: Path) -> None:
    """Delete the checkpoints of a finished run.

    After the artifact, never before: a process killed in between must find either of the two. The next run of a
    finished stage deletes what is then left.
    """
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
