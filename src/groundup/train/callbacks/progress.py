"""Callbacks of the training loop.

The callbacks write the metrics log, update the progress bar, and call functions at certain steps or time intervals.
"""

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
from groundup.train.callbacks.samples import SAMPLES
from groundup.train.fit import StepReport

_DATA_BOUND = 0.1  # fraction of the step time above which the progress bar shows the time spent waiting for batches
_STEPS_TO_ACTION = 20  # minimum ratio of the training time between two calls of an action to the time of the action
METRICS = "metrics.jsonl"
_SINGLE_RANK = Ranks()


class Speed:
    """Compute the model FLOPs utilization (MFU) of training steps.

    Args:
        flops_per_step: Model FLOPs of a step, summed over all ranks, or None if unknown.
        peak_flops: Sustained matmul throughput in FLOP/s, summed over all ranks, or None if unknown.
    """

    def __init__(self, flops_per_step: float | None, peak_flops: float | None) -> None:
        self._flops_per_step = flops_per_step
        self._peak_flops = peak_flops

    def mfu(self, report: StepReport) -> float | None:
        """Return the MFU, which is between 0 and 1, or None if the FLOPs or the throughput are unknown.

        The MFU is defined by Chowdhery et al. 2022 (arXiv:2204.02311, appendix B).
        """
        if not self._flops_per_step or not self._peak_flops or report.seconds <= 0:
            return None
        return self._flops_per_step / report.seconds / self._peak_flops


def row_of(report: StepReport, speed: Speed) -> dict[str, float | None]:
    """Return the metrics of a step as JSON values. Infinite and NaN values are replaced by None."""
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
    """Callback that appends one JSON object per step to `metrics.jsonl`.

    A process may be killed after it logged steps that follow its last checkpoint. The resumed run takes these steps
    again, so the log first deletes the rows of all steps after the checkpoint. Except for the wall times, the file is
    then the same as in an uninterrupted run.

    Args:
        path: Path of the log.
        kept_rows: Number of rows to keep when a run resumes.
        speed: Computes the MFU.
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
    """Return whether a line of a log is a complete JSON object. A killed process may leave an incomplete line."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def logs_in(directory: Path) -> dict[str, tuple[int, str]]:
    """Return a dict from the file name of each existing log to its size in bytes and its checksum."""
    paths = [directory / name for name in (METRICS, SAMPLES)]
    return {path.name: (path.stat().st_size, file_digest(path)) for path in paths if path.is_file()}


def require_logs(directory: Path, logs: Mapping[str, tuple[int, str]], warn: Callable[[str], None]) -> None:
    """Warn about each log that was damaged after the checkpoint from which a run resumes.

    Args:
        directory: Directory that contains the logs.
        logs: Result of `logs_in`, saved with the checkpoint. Rows that were appended after the checkpoint are not
            compared.
        warn: Prints a warning.
    """
    for name, (size, digest) in logs.items():
        path = directory / name
        content = path.read_bytes()[:size] if path.is_file() else b""
        if hashlib.blake2b(content, digest_size=16).hexdigest() != digest:
            warn(f"{path}: the contents do not match the checksum. The file is damaged.")


class ShowProgress:
    """Callback that advances the progress bar by the number of tokens of each step, and shows the loss and the MFU."""

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
    """Division of a run into `times` equal parts. The number of steps of the run may change during the run."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._step = -1
        self._passed = 0

    def passed(self, report: StepReport) -> int:
        """Return the number of completed parts if this step completes a part; otherwise return 0."""
        if report.step != self._step + 1:  # true for the first step after a start, a resume or a rollback
            self._passed = (report.step - 1) * self._times // report.total_steps
        before, self._step = self._passed, report.step
        self._passed = max(before, report.step * self._times // report.total_steps)
        return self._passed if self._passed > before else 0


class AtFractions:
    """Callback that divides a run into `times` equal parts, and calls `action(report)` between the parts."""

    def __init__(self, times: int, action: Callable[[StepReport], None]) -> None:
        self._times = times
        self._parts = EqualParts(times)
        self._action = action

    def after_step(self, report: StepReport) -> None:
        """Call the action if the step completes a part."""
        if 0 < self._parts.passed(report) < self._times:
            self._action(report)


class EverySeconds:
    """Callback that calls `action(report)` on all ranks every `seconds` of training time, and after the last step.

    A slow action is called less often, because the training time between two calls is at least 20 times the duration
    of the action. A checkpoint of GPT-2 (124M parameters) has 1.5 GB, and writing it every 30 seconds took 10 % of the
    time of a run.

    Args:
        seconds: Training time between two calls, or 0 to call the action after every step, even if the action is slow.
        action: Function to call.
        ended: Returns whether the run stops early, after the current step.
        ranks: Ranks of the run. The first rank measures the duration of the action.
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
