"""Log the metrics of a run to experiment trackers: TensorBoard, Weights & Biases, or Trackio.

The trackers receive the same metrics per step as `metrics.jsonl`.
"""

from __future__ import annotations

import importlib
import secrets
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from groundup.core.errors import ConfigError
from groundup.train.callbacks.progress import Speed, row_of
from groundup.train.fit import StepReport

TrackerName = Literal["tensorboard", "wandb", "trackio"]


class Tracker(Protocol):
    """Interface of experiment trackers: a callback that has a method `close`."""

    def after_step(self, report: StepReport) -> None:
        """Log the metrics of a step."""
        ...

    def close(self) -> None:
        """Write the remaining metrics and close the tracker."""
        ...


def open_tracker(name: TrackerName, directory: Path, speed: Speed, *, from_row: int, facts: dict[str, Any]) -> Tracker:
    """Open an experiment tracker. A resumed training run continues the same run in the tracker.

    Args:
        name: Name of the tracker.
        directory: Output directory of the stage, in which the name of the run is saved. The name consists of the last
            two parts of the path of this directory, and a random suffix.
        speed: Computes the MFU.
        from_row: Number of rows that earlier processes logged up to the checkpoint from which the run resumes.
        facts: Settings of the run, which the tracker shows next to the metrics.

    Raises:
        ConfigError: The package of the tracker is not installed.
    """
    if name == "tensorboard":
        return _TensorBoard(directory, speed, from_row)
    return _Runs(name, _run_name(name, directory, from_row), directory, speed, from_row, facts)


def _run_name(name: TrackerName, directory: Path, from_row: int) -> str:
    """Return the name of the run in the tracker. A resumed training run keeps its name; a new run gets a new name."""
    kept = directory / f"{name}-run"
    if not from_row or not kept.is_file():
        kept.write_text(f"{'-'.join(directory.resolve().parts[-2:])}-{secrets.token_hex(4)}", encoding="utf-8")
    return kept.read_text(encoding="utf-8")


class _TensorBoard:
    """Tracker that writes event files for TensorBoard to the directory `tensorboard/`."""

    def __init__(self, directory: Path, speed: Speed, from_row: int) -> None:
        _library("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # A resumed run logs the steps after its last checkpoint again, and `purge_step` hides the old rows.
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=from_row + 1)
        self._speed = speed
        self._rows = from_row

    def after_step(self, report: StepReport) -> None:
        self._rows += 1
        for key, value in _values(report, self._speed).items():
            self._writer.add_scalar(key, value, self._rows)

    def close(self) -> None:
        self._writer.close()


class _Runs:
    """Tracker for Weights & Biases and for Trackio, which have the same API.

    If the user is not logged in, Weights & Biases runs in offline mode. Trackio stores runs locally.
    """

    def __init__(
        self, name: TrackerName, run: str, directory: Path, speed: Speed, from_row: int, facts: dict[str, Any]
    ) -> None:
        library = _library(name, name)
        options: dict[str, Any] = {"project": "groundup", "name": run, "config": facts, "resume": "allow"}
        if name == "wandb":
            logged_in = library.api.api_key is not None
            options |= {"id": run, "dir": str(directory), **({} if logged_in else {"mode": "offline"})}
        self._run = library.init(**options)
        self._speed = speed
        self._rows = from_row

    def after_step(self, report: StepReport) -> None:
        self._rows += 1
        self._run.log(_values(report, self._speed), step=self._rows)

    def close(self) -> None:
        self._run.finish()


def _values(report: StepReport, speed: Speed) -> dict[str, float]:
    # The trackers receive the step as the x-axis and reserve the name "step", so the step is not a metric.
    row = row_of(report, speed)
    return {key: value for key, value in row.items() if value is not None and key not in ("step", "total_steps")}


def _library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f'report_to = ["{module}"]: {package} is not installed',
            fix=f"Run pip install {package}, or remove it from report_to; metrics.jsonl is always written.",
        ) from None
