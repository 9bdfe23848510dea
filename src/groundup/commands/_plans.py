"""The plan of a run: made once by the first rank, fitted to the memory, saved before step 1, read by every resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from groundup.core.artifact import ARTIFACT
from groundup.core.checksums import read_checked_json, write_checked_json
from groundup.core.errors import ConfigError
from groundup.distributed.ranks import Ranks

if TYPE_CHECKING:
    from groundup.distributed import ParallelModel
    from groundup.distributed.parallel_model import ModelT
    from groundup.kernels import Machine
    from groundup.optim import OptimizerConfig
    from groundup.train.objectives import Objective
    from groundup.train.planner import Plan

BatchT = TypeVar("BatchT")
Resolved = tuple["Machine", "Plan"]

PLAN = "plan.json"
PLAN_VERSION = 2  # since then the settings that a plan was made of have absolute learning rates


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


class SavedPlan:
    """A stage's `plan.json`."""

    def __init__(self, path: Path, ranks: Ranks) -> None:
        self.path = path
        self._ranks = ranks
        self.new = True  # until one that was begun with is read

    def read_or(self, resolve: Callable[[], Resolved]) -> Resolved:
        """The plan that the run began with; else that of `resolve`, which every rank calls."""
        from groundup.kernels import Machine
        from groundup.train.planner import Plan

        here = self._ranks.first and self.path.is_file()
        saved: dict[str, Any] | None = self._ranks.told(read_plan(self.path) if here else None)
        if saved is None:
            return resolve()
        self.new = False
        return Machine.from_json(saved["machine"]), Plan.from_json(saved["plan"])

    def settle(
        self,
        machine: Machine,
        plan: Plan,
        spread: ParallelModel[ModelT],
        objective: Objective[BatchT],
        batch_of: Callable[[int], BatchT],
    ) -> Plan:
        """Fit the micro-batches of a new plan into the memory, by real passes, and write it down.

        The step's batch stays what it is. A GPU, which is the faster the more it is given, gets larger ones, too.

        Args:
            batch_of: a batch of so many rows.

        Raises:
            ConfigError: so many ranks cannot share a step.
            ResourceError: not even one row fits.
        """
        from groundup.train.planner import share

        if not self.new:
            return plan
        share(plan.rows, plan.rows, self._ranks.size)  # refused before anything is computed
        most = plan.rows if machine.device == "cuda" else plan.micro_batch_size
        micro = fitting(spread, objective, batch_of, most, machine, self._ranks)
        if micro != plan.micro_batch_size:
            micro, accum = share(plan.rows, micro, 1)
            plan = replace(plan, micro_batch_size=micro, grad_accum_steps=accum)
        if self._ranks.first:
            record = {"version": PLAN_VERSION, "machine": machine.to_json(), "plan": plan.to_json()}
            write_checked_json(self.path, record)
        self._ranks.wait()
        return plan


def read_plan(path: Path) -> dict[str, Any]:
    """Read a `plan.json`.

    Raises:
        FormatError: It is damaged.
    """
    return read_checked_json(path, fix=f"Restore it from a copy, or delete {path.parent} and run the command again.")


def fitting(
    spread: ParallelModel[ModelT],
    objective: Objective[BatchT],
    batch_of: Callable[[int], BatchT],
    most: int,
    machine: Machine,
    ranks: Ranks,
) -> int:
    """How many rows of a micro-batch, `most` at the utmost, fit into the memory: `groundup.train.fitting_rows`."""
    from groundup.kernels import eagerly
    from groundup.train import fitting_rows

    with eagerly():
        return fitting_rows(
            spread.probed,
            objective,
            batch_of,
            most=most,
            device=machine.device,
            state_bytes=spread.optimizer_bytes,
            ranks=ranks,
        )


def foretold(
    spread: ParallelModel[ModelT],
    objective: Objective[BatchT],
    largest: BatchT,
    usual: BatchT,
    optimizer: OptimizerConfig,
    *,
    steps: int,
    grad_accum_steps: int = 1,
    machine: Machine,
    ranks: Ranks,
    formula: int,
) -> str:
    """Time and memory of a run in a sentence, by steps on trial; see `groundup.train.rehearse`.

    Args:
        formula: the memory in bytes, where the system does not say what was taken.
    """
    from groundup.train import rehearse
    from groundup.train.planner.tuning import expected

    found = rehearse(
        spread.called,
        objective,
        largest,
        usual,
        spread.optimizer(optimizer),
        grad_accum_steps=grad_accum_steps,
        device=machine.device,
        ranks=ranks,
    )
    memory = found.bytes if found.bytes > 0 else formula
    return expected(steps * found.seconds, memory, "by steps on trial")
