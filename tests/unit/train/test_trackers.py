"""Experiment trackers log the same values as the metrics log; a missing tracker is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundup.core.errors import ConfigError
from groundup.train import MetricsLog, Speed, StepReport, open_tracker

SPEED = Speed(flops_per_step=2e9, peak_flops=1e10)


def report(step: int, **changes: Any) -> StepReport:
    values = {"tokens": 64, "tokens_seen": 64 * step, "lr_factor": 0.5, "grad_norm": 1.5, "seconds": 0.4}
    return StepReport(step=step, total_steps=9, metrics={"loss": 5.0 - step}, **values | changes)


def test_the_log_contains_the_mfu(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", kept_rows=0, speed=SPEED)
    log.after_step(report(1))
    log.after_step(report(2, waited=0.1))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["mfu"] for row in rows] == [0.5, 0.5]  # 2e9 FLOPs in 0.4 s, of 1e10 FLOP/s
    assert [row.get("waited") for row in rows] == [0.0, 0.1]


def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = open_tracker("tensorboard", tmp_path, SPEED, from_row=0, facts={})
    for step in (1, 2, 3, 4):
        first.after_step(report(step))
    first.close()
    again = open_tracker("tensorboard", tmp_path, SPEED, from_row=2, facts={})
    for step in (3, 4, 5):
        again.after_step(report(step))
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(n, 5.0 - n) for n in (1, 2, 3, 4, 5)]
    assert {"grad_norm", "lr_factor", "mfu", "tokens_seen"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_tracker_is_named_with_its_fix(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        open_tracker(name, tmp_path, SPEED, from_row=0, facts={})


def test_another_run_in_the_same_directory_is_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers drop or overlay the steps of a run with a known id."""
    names = []
    program = SimpleNamespace(init=lambda **options: names.append(options["name"]))
    monkeypatch.setitem(sys.modules, "trackio", program)
    for from_row in (0, 2, 5, 0, 1):  # two runs, the first of which was interrupted twice
        open_tracker("trackio", tmp_path, SPEED, from_row=from_row, facts={})
    assert names[0] == names[1] == names[2] != names[3] == names[4]
    assert all(tmp_path.name in name for name in names)


@pytest.mark.interop
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_runs_are_stored_locally_without_an_account(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    program = f"""
from pathlib import Path
from groundup.train import Speed, StepReport, open_tracker
tracker = open_tracker({name!r}, Path({str(tmp_path / "run")!r}), Speed(None, 1.0), from_row=0, facts={{"seed": 0}})
for step in (1, 2):
    tracker.after_step(StepReport(step, 2, 64, 64 * step, 1.0, 1.0, 0.1, metrics={{"loss": 1.0}}))
tracker.close()
"""
    (tmp_path / "run").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "TRACKIO", "HF_"))}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".wandb", ".db") and path.stat().st_size]
