"""Other programs that draw the curves of a run, where they are installed: TensorBoard, Weights & Biases, Trackio.

Each gets the same values a step as `metrics.jsonl`.
"""

from __future__ import annotations

import importlib
import secrets
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from groundup.core.errors import ConfigError
from groundup.train.callbacks import Speed, row_of
from groundup.train.fit import StepReport

TrackerName = Literal["tensorboard", "wandb", "trackio"]


class Tracker(Protocol):
    """A callback that has something to close."""

    def after_step(self, report: StepReport) -> None: ...
    def close(self) -> None: ...


def open_tracker(name: TrackerName, directory: Path, speed: Speed, *, from_row: int, facts: dict[str, Any]) -> Tracker:
    """Begin to log, or go on.

    Args:
        directory: of the stage; a run is called after it and the one above it, and its name is kept in it.
        from_row: rows that an earlier process logged, and that count.
        facts: settings of the run, shown beside its curves.

    Raises:
        ConfigError: it is not installed.
    """
    if name == "tensorboard":
        return _TensorBoard(directory, speed, from_row)
    return _Runs(name, _run_name(name, directory, from_row), directory, speed, from_row, facts)


def _run_name(name: TrackerName, directory: Path, from_row: int) -> str:
    """What a run is called, and known by: a new one in the same place must not go on with an old one's curves."""
    kept = directory / f"{name}-run"
    if not from_row or not kept.is_file():
        kept.write_text(f"{'-'.join(directory.resolve().parts[-2:])}-{secrets.token_hex(4)}", encoding="utf-8")
    return kept.read_text(encoding="utf-8")


class _TensorBoard:
    """Event files in `tensorboard/`: `tensorboard --logdir DIR` shows them."""

    def __init__(self, directory: Path, speed: Speed, from_row: int) -> None:
        _library("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # What was logged after the last checkpoint is logged again, and no longer shown twice.
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
    """Weights & Biases, and Trackio, which has the same calls. Without an account, both keep runs on this machine."""

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
    # The step is the axis, and a name that these programs keep for themselves.
    row = row_of(report, speed)
    return {key: value for key, value in row.items() if value is not None and key not in ("step", "total_steps")}


def _library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f'report_to = ["{module}"]: {package} is not installed',
            rule="what shall show the metrics must be there; metrics.jsonl is always written",
            fix=f"pip install {package}, or take it out of report_to.",
        ) from None
