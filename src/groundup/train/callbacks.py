"""What happens between steps: the log of losses, the progress bar, evaluation, samples, checkpoints."""

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

_STARVED = 0.1  # of a step's time: where more goes to waiting for batches, it is said
_STEPS_TO_ACTION = 20  # time of steps for each second of what is done now and then
METRICS = "metrics.jsonl"
_ALONE = Ranks()


class Speed:
    """How much of the machine a step used.

    Args:
        flops_per_step: of the model, by formula, in a step of all ranks; None: not known.
        peak_flops: sustained matmul throughput in FLOP/s of all ranks together; None: not known, no MFU.
    """

    def __init__(self, flops_per_step: float | None, peak_flops: float | None) -> None:
        self._flops_per_step = flops_per_step
        self._peak_flops = peak_flops

    def mfu(self, report: StepReport) -> float | None:
        """Model FLOPs utilization (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), 0 to 1."""
        if not self._flops_per_step or not self._peak_flops or report.seconds <= 0:
            return None
        return self._flops_per_step / report.seconds / self._peak_flops


def row_of(report: StepReport, speed: Speed) -> dict[str, float | None]:
    """What every log says of a step; a number that is not finite is None."""
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
    """One JSON object a step in `metrics.jsonl`.

    A run that goes on after n batches first drops what a killed process wrote after its last checkpoint, so that the
    file reads like that of an uninterrupted run (wall times aside).
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
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row_of(report, self._speed)) + "\n")


def _is_row(line: str) -> bool:
    """Whether a line of a log is whole: a killed process leaves half of one, and a damaged disk anything."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def logs_in(directory: Path) -> dict[str, tuple[int, str]]:
    """Return size and checksum of each log that a training run appends to, as it is now."""
    paths = [directory / name for name in (METRICS, SAMPLES)]
    return {path.name: (path.stat().st_size, file_digest(path)) for path in paths if path.is_file()}


def require_logs(directory: Path, logs: Mapping[str, tuple[int, str]], say: Callable[[str], None]) -> None:
    """Say which log is not what it was when the state was saved that a run resumes from; what it says is not verified.

    Args:
        directory: Where the logs are.
        logs: What `logs_in` returned then; rows that were appended since do not matter.
        say: Is told.
    """
    for name, (size, digest) in logs.items():
        path = directory / name
        content = path.read_bytes()[:size] if path.is_file() else b""
        if hashlib.blake2b(content, digest_size=16).hexdigest() != digest:
            say(f"{path}: its contents do not match its checksum. It is damaged; curves drawn from it may be wrong.")


class ShowProgress:
    """Moves a bar by the tokens of each step, and shows the loss, and how much of the machine is used."""

    def __init__(self, bar: ProgressBar, speed: Speed) -> None:
        self._bar = bar
        self._speed = speed
        self._total_steps: int | None = None

    def after_step(self, report: StepReport) -> None:
        if self._total_steps not in (None, report.total_steps):
            self._bar.expect(report.tokens_seen / report.step * report.total_steps)
        self._total_steps = report.total_steps
        self._bar.advance(report.tokens)
        shown = {"loss": f"{report.metrics['loss']:.3f}", "step": f"{report.step}/{report.total_steps}"}
        if (mfu := self._speed.mfu(report)) is not None:
            shown["mfu"] = f"{100 * mfu:.0f} %"
        starved = report.waited > _STARVED * report.seconds
        shown["waiting for data"] = f"{100 * report.waited / report.seconds:.0f} %" if starved else ""
        self._bar.show(**shown)


class Parts:
    """Equal parts of a run, whose length may change on the way: each is passed once, also where it moves."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._step = -1
        self._passed = 0

    def passed(self, report: StepReport) -> int:
        """How many parts are over with this step, where it ends one; else 0."""
        if report.step != self._step + 1:  # the run begins here, goes on from a checkpoint, or has gone back
            self._passed = (report.step - 1) * self._times // report.total_steps
        before, self._step = self._passed, report.step
        self._passed = max(before, report.step * self._times // report.total_steps)
        return self._passed if self._passed > before else 0


class AtFractions:
    """Calls `action(report)` when the run passes each of `times` equal parts of its length, the end not included."""

    def __init__(self, times: int, action: Callable[[StepReport], None]) -> None:
        self._times = times
        self._parts = Parts(times)
        self._action = action

    def after_step(self, report: StepReport) -> None:
        if 0 < self._parts.passed(report) < self._times:
            self._action(report)


class EverySeconds:
    """Calls `action(report)` after each `seconds` of steps, and after the last step. Ranks agree on when that is.

    An action that takes long is called less often: the steps until the next take 20 times as long, at least. The state
    of GPT-2's 124M has 1.5 GB: written every 30 seconds, it was 10 % of a run's time.

    Args:
        seconds: 0 is after every step, whatever that costs.
        ended: whether a step that is not the last of the schedule is the last of the run.
        ranks: the first says how long its action took.
    """

    def __init__(
        self,
        seconds: float,
        action: Callable[[StepReport], None],
        ended: Callable[[], bool] = lambda: False,
        ranks: Ranks = _ALONE,
    ) -> None:
        self._seconds = self._due = seconds
        self._ended = ended
        self._action = action
        self._ranks = ranks
        self._passed = 0.0

    def after_step(self, report: StepReport) -> None:
        self._passed += report.seconds
        if self._passed >= self._due or report.step == report.total_steps or self._ended():
            started = time.perf_counter()
            self._action(report)
            took = self._ranks.broadcast_object(time.perf_counter() - started)
            self._due = max(self._seconds, _STEPS_TO_ACTION * took) if self._seconds else 0.0
            self._passed = 0.0
