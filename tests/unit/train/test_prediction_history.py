"""The history of predictions: it corrects later estimates, and survives damage and parallel runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from groundup.core.files import cache_dir
from groundup.train.measurement.prediction_history import Outcome, read_runs, remember_run, speed_ratio


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _remember(device: str, predicted: float, measured: float, seconds: float = 100.0) -> None:
    remember_run(
        device,
        10**6,
        10**5,
        Outcome(90.0, predicted, 10**9, 2.0, (1.9, 2.1)),
        Outcome(seconds, measured, None, 2.05),
    )


def test_estimates_are_corrected_by_the_median_of_runs_on_the_same_device() -> None:
    """One run during a backup was half as fast, and halved all later estimates."""
    for measured in (900, 450):
        _remember("cpu", 1000, measured)
    assert speed_ratio(read_runs("cpu")) == (1.0, 0.0, 0)  # one of two runs may be the disturbed one
    for measured in (910, 905):
        _remember("cpu", 1000, measured)
    _remember("other", 1000, 3000)
    _remember("cpu", 1000, 100, seconds=2.0)  # too short
    ratio, spread, count = speed_ratio(read_runs("cpu"))
    assert (ratio, count) == (pytest.approx(0.9025), 4)
    assert spread < 0.02
    assert speed_ratio([]) == (1.0, 0.0, 0)


def test_damaged_lines_are_ignored_and_replaced() -> None:
    _remember("cpu", 1000, 900)
    file = next(cache_dir().rglob("predictions.jsonl"))
    file.write_text(file.read_text() + '{"at": "2026-\n', encoding="utf-8")
    _remember("cpu", 1000, 800)
    assert [run["measured"]["tokens_per_second"] for run in read_runs("cpu")] == [900, 800]
    assert "memory_bytes" not in read_runs()[0]["measured"]


def test_runs_that_end_at_the_same_time_are_all_kept() -> None:
    code = "from groundup.train.measurement.prediction_history import *; n = Outcome(1.0, 1.0, 1, 1.0); "
    code += "[remember_run('cpu', 1, 1, n, n) for _ in range(20)]"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(read_runs("cpu")) == 60
