"""What happens between steps: the log of losses, the progress bar, evaluation, samples, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from groundup.console import Progress as ProgressBar
from groundup.files import atomic_file
from groundup.train.state import StepReport


class MetricsLog:
    """One JSON object a step in `metrics.jsonl`.

    A run that goes on from step n first drops what a killed process wrote after its last checkpoint, so that the file
    reads like that of an uninterrupted run (wall times aside).
    """

    def __init__(self, path: Path, *, from_step: int) -> None:
        kept = []
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines[:from_step] if line.endswith("}")]
        with atomic_file(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._path = path

    def after_step(self, report: StepReport) -> None:
        row = {
            "step": report.step,
            "tokens_seen": report.tokens_seen,
            **report.metrics,
            "grad_norm": report.grad_norm,
            "lr_factor": report.lr_factor,
            "seconds": round(report.seconds, 4),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class ShowProgress:
    """Moves a bar by the tokens of each step, and shows the loss."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar

    def after_step(self, report: StepReport) -> None:
        self._bar.advance(report.tokens)
        self._bar.show(loss=f"{report.metrics['loss']:.3f}", step=f"{report.step}/{report.total_steps}")


class AtFractions:
    """Calls `action(report)` when the run passes each of `times` equal parts of its length, the end not included."""

    def __init__(self, times: int, action: Callable[[StepReport], None]) -> None:
        self._times = times
        self._action = action

    def after_step(self, report: StepReport) -> None:
        before = (report.step - 1) * self._times // report.total_steps
        if before < report.step * self._times // report.total_steps < self._times:
            self._action(report)


class EverySeconds:
    """Calls `action(report)` after the first step that ends `seconds` after the last call, and after the last step."""

    def __init__(self, seconds: float, action: Callable[[StepReport], None]) -> None:
        self._seconds = seconds
        self._action = action
        self._last = time.monotonic()

    def after_step(self, report: StepReport) -> None:
        if time.monotonic() - self._last >= self._seconds or report.step == report.total_steps:
            self._action(report)
            self._last = time.monotonic()
