"""History of predictions: for each pretraining run on this machine, the predicted and the measured values."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

from groundup.core.environment import cpu_name
from groundup.core.history import History

_HISTORY = History("training/predictions.jsonl", max_records=500)
_KEYS = {"at", "device", "parameters", "tokens", "predicted", "measured"}
_CORRECTED_BY = 9  # number of recent runs from which the time is corrected
_MIN_RUNS = 3
_MIN_SECONDS = 20.0  # shorter runs do not show the speed of the machine


@dataclass(frozen=True, slots=True)
class Outcome:
    """Predicted or measured values of a run.

    Attributes:
        seconds: Time of training with evaluations, in seconds.
        tokens_per_second: Training throughput.
        memory_bytes: Peak memory in bytes, or None if unknown.
        bits_per_byte: Bits per byte of held-out text, or None if unknown.
        bits_per_byte_interval: 90 % interval of a prediction.
    """

    seconds: float | None
    tokens_per_second: float | None
    memory_bytes: int | None
    bits_per_byte: float | None
    bits_per_byte_interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the known values as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the values from the result of `to_json`, with None for unknown values."""
        return cls(**{name: record.get(name) for name in cls.__slots__})


def device_name(device: str) -> str:
    """Return the name of the GPU or CPU.

    Args:
        device: "cpu", "cuda" or "mps".
    """
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return cpu_name()


def device_key(device: str, threads: int) -> str:
    """Return the name of the device in the history."""
    return device_name(device) if device == "cuda" else f"{device_name(device)}, {threads} threads"


def remember_run(device: str, parameters: int, tokens: int, predicted: Outcome, measured: Outcome) -> None:
    """Append a run to the history.

    Args:
        device: Result of `device_key`.
        parameters: Number of parameters.
        tokens: Number of training tokens.
        predicted: Predicted values.
        measured: Measured values.
    """
    record = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": device,
        "parameters": parameters,
        "tokens": tokens,
        "predicted": predicted.to_json(),
        "measured": measured.to_json(),
    }
    _HISTORY.append(record)


def read_runs(device: str | None = None) -> list[dict[str, Any]]:
    """Return the runs in the history, the oldest first.

    Args:
        device: Return only runs on this device.
    """
    complete = (record for record in _HISTORY.read() if record.keys() >= _KEYS)
    return [record for record in complete if device in (None, record["device"])]


def speed_ratio(runs: Sequence[Mapping[str, Any]]) -> tuple[float, float, int]:
    """Return how much faster recent runs were than predicted.

    Args:
        runs: Runs on one device, the oldest first.

    Returns:
        The median of measured divided by predicted throughput, its relative spread, and the number of runs; 1, 0
        and 0 if there are fewer than three runs, because other load may have disturbed one of them.
    """
    ratios = []
    for run in runs:
        with suppress(KeyError, TypeError, ZeroDivisionError):
            if run["measured"]["seconds"] >= _MIN_SECONDS:
                ratios.append(run["measured"]["tokens_per_second"] / run["predicted"]["tokens_per_second"])
    recent = ratios[-_CORRECTED_BY:]
    if len(recent) < _MIN_RUNS:
        return 1.0, 0.0, 0
    middle = statistics.median(recent)
    return middle, statistics.median(abs(ratio / middle - 1) for ratio in recent), len(recent)
