"""Callbacks of the training loop: metrics log, progress bar, and calls at fractions of the run or at time intervals."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from groundup.core.console import ProgressBar as ProgressBar
from groundup.core.files import atomic_file, file_digest
from groundup.distributed.ranks import Ranks
from groundup.train.fit import StepReport
from groundup.train.samples import SAMPLES

_DATA_BOUND = 0.1  # fraction of a step's time; more time spent waiting for batches is shown
_STEPS_TO_ACTION = 20  # minimum ratio of the time of steps to the time of the action between them
METRICS = "metrics.jsonl"
_SINGLE_RANK = Ranks()


class Speed:
    """Compute the utilization of the machine.

    Args:
        flops_per_step: Model FLOPs of a step over all ranks; None: unknown.
        peak_flops: Sustained matmul throughput of all ranks in FLOP/s; None: unknown, no MFU.
    """

    def __init__(self, flops_per_step: float | None, peak_flops: float | None) -> None:
        self._flops_per_step = flops_per_step
        self._peak_flops = peak_flops

    def mfu(self, report: StepReport) -> float | None:
        """Return the model FLOPs utilization, 0 to 1 (Chowdhery et al. 2022, arXiv:2204.02311, appendix B)."""
        if not self._flops_per_step or not self._peak_flops or report.seconds <= 0:
            return None
        return self._flops_per_step / report.seconds / self._peak_flops


def row_of(report: StepReport, speed: Speed) -> dict[str, float | None]:
    """Return the metrics of a step; a value that is not finite is None."""
    row = {
        "step": report.step,
        "total_steps": report.total_steps,
        "tokens_seen": report.tokens_seen,
        **report.metrics,
        "grad_norm": report.grad_norm,
        "lr_factor": report.lr_factor,
        "seconds": round(report.seconds, 4),
        "waited": round(report.waited, 4),
    }
    if (mfu := speed.mfu(report)) is not None:
        row["mfu"] = round(mfu, 4)
    row |= {"skipped": 1} if report.skipped else {}
    row |= {"rollbacks": report.rollbacks} if report.rollbacks else {}
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


class MetricsLog:
    """Callback that appends a JSON object per step to `metrics.jsonl`.

    A run that resumes after n batches first drops the rows that a killed process wrote after its last checkpoint.
    Except for wall times, the file is the same as in an uninterrupted run.
    """

    def __init__(self, path: Path, *, kept_rows: int, speed: Speed) -> None:
        kept = []
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            kept = [line for line in lines[:kept_rows] if _is_row(line)]
        with atomic_file(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._path = path
        self._speed = speed

    def after_step(self, report: StepReport) -> None:
        """Append the metrics of a step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row_of(report, self._speed)) + "\n")


def _is_row(line: str) -> bool:
    """Return whether a line of a log is complete: a killed process or a damaged disk may leave a broken one."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def logs_in(directory: Path) -> dict[str, tuple[int, str]]:
    """Return size and checksum of each log that a training run appends to."""
    paths = [directory / name for name in (METRICS, SAMPLES)]
    return {path.name: (path.stat().st_size, file_digest(path)) for path in paths if path.is_file()}


def require_logs(directory: Path, logs: Mapping[str, tuple[int, str]], warn: Callable[[str], None]) -> None:
    """Warn about each log that differs from its state at the checkpoint that a run resumes from.

    Args:
        directory: Directory of the logs.
        logs: Result of `logs_in` at that time; rows that were appended since are ignored.
        warn: Prints a warning.
    """
    for name, (size, digest) in logs.items():
        path = directory / name
        content = path.read_bytes()[:size] if path.is_file() else b""
        if hashlib.blake2b(content, digest_size=16).hexdigest() != digest:
            warn(f"{path}: the contents do not match the checksum. The file is damaged; its curves may be wrong.")


class ShowProgress:
    """Callback that advances a progress bar by the tokens of each step, and shows loss and MFU."""

    def __init__(self, bar: ProgressBar, speed: Speed) -> None:
        self._bar = bar
        self._speed = speed
        self._total_steps: int | None = None

    def after_step(self, report: StepReport) -> None:
        """Advance the bar."""
        if self._total_steps not in (None, report.total_steps):
            self._bar.expect(report.tokens_seen / report.step * report.total_steps)
        self._total_steps = report.total_steps
        self._bar.advance(report.tokens)
        shown = {"loss": f"{report.metrics['loss']:.3f}", "step": f"{report.step}/{report.total_steps}"}
        if (mfu := self._speed.mfu(report)) is not None:
            shown["mfu"] = f"{100 * mfu:.0f} %"
        starved = report.waited > _DATA_BOUND * report.seconds
        shown["waiting for data"] = f"{100 * report.waited / report.seconds:.0f} %" if starved else ""
        self._bar.show(**shown)


class EqualParts:
    """Equal parts of a run whose number of steps may change; each part ends once."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._step = -1
        self._passed = 0

    def passed(self, report: StepReport) -> int:
        """Return the number of completed parts if this step completes one; otherwise 0."""
        if report.step != self._step + 1:  # the run starts, resumes or rolled back
            self._passed = (report.step - 1) * self._times // report.total_steps
        before, self._step = self._passed, report.step
        self._passed = max(before, report.step * self._times // report.total_steps)
        return self._passed if self._passed > before else 0


class AtFractions:
    """Callback that calls `action(report)` at the end of each of `times` equal parts of a run, except for the last."""

    def __init__(self, times: int, action: Callable[[StepReport], None]) -> None:
        self._times = times
        self._parts = EqualParts(times)
        self._action = action

    def after_step(self, report: StepReport) -> None:
        """Call the action if the step completes a part."""
        if 0 < self._parts.passed(report) < self._times:
            self._action(report)


class EverySeconds:
    """Callback that calls `action(report)` at intervals of `seconds` of steps, and after the last step, on all ranks.

    A slow action is called less often: the steps until the next call take at least 20 times as long. A checkpoint of
    GPT-2 (124M parameters) has 1.5 GB; writing it every 30 seconds took 10 % of a run's time.

    Args:
        seconds: Interval; 0: after every step, at any cost.
        action: Function to call.
        ended: Returns whether the run ends before the last step of the schedule.
        ranks: Ranks of the run; the first one measures the action.
    """

    def __init__(
        self,
        seconds: float,
        action: Callable[[StepReport], None],
        ended: Callable[[], bool] = lambda: False,
        ranks: Ranks = _SINGLE_RANK,
    ) -> None:
        self._seconds = self._due = seconds
        self._ended = ended
        self._action = action
        self._ranks = ranks
        self._passed = 0.0

    def after_step(self, report: StepReport) -> None:
        """Call the action if the interval has passed."""
        self._passed += report.seconds
        if self._passed >= self._due or report.step == report.total_steps or self._ended():
            started = time.perf_counter()
            self._action(report)
            took = self._ranks.broadcast_object(time.perf_counter() - started)
            self._due = max(self._seconds, _STEPS_TO_ACTION * took) if self._seconds else 0.0
            self._passed = 0.0
