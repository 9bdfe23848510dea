"""Incremental reading of a training log that is being written or rewritten."""

from __future__ import annotations

import json
from pathlib import Path

from groundup.distributed.ranks import Ranks
from groundup.studio.curves import new_rows, plan_and_samples
from groundup.train import SampleLog
from groundup.train.callbacks.progress import MetricsLog, Speed
from groundup.train.fit import StepReport


def report(step: int) -> StepReport:
    return StepReport(
        step=step,
        total_steps=5000,
        tokens=10,
        tokens_seen=10 * step,
        lr_factor=1.0,
        grad_norm=1.0,
        seconds=0.5,
        waited=0.0,
        metrics={"loss": 9.0 / step},
    )


def log(directory: Path, kept: int = 0) -> MetricsLog:
    return MetricsLog(directory / "metrics.jsonl", kept_rows=kept, speed=Speed(None, 1.0))


def test_each_row_is_returned_once_after_it_is_complete(tmp_path: Path) -> None:
    writer = log(tmp_path)
    for step in (1, 2, 3):
        writer.after_step(report(step))
    seen = new_rows(tmp_path, "")
    assert ([row["step"] for row in seen["rows"]], seen["reset"]) == ([1, 2, 3], True)
    line = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(line[:9])
        file.flush()
        assert new_rows(tmp_path, seen["cursor"])["rows"] == []
        file.write(line[9:] + "\n")
    more = new_rows(tmp_path, seen["cursor"])
    assert (more["rows"], more["reset"]) == ([json.loads(line)], False)
    assert new_rows(tmp_path, more["cursor"])["rows"] == []


def test_a_rewritten_log_is_read_from_its_start(tmp_path: Path) -> None:
    """A resumed run removes the rows after its checkpoint, so appending to the old rows would repeat steps."""
    writer = log(tmp_path)
    for step in (1, 2, 3, 4):
        writer.after_step(report(step))
    seen = new_rows(tmp_path, "")
    resumed = log(tmp_path, kept=2)
    for step in (3, 4, 5, 6, 7):
        resumed.after_step(report(step))
    new = new_rows(tmp_path, seen["cursor"])
    assert ([row["step"] for row in new["rows"]], new["reset"]) == ([1, 2, 3, 4, 5, 6, 7], True)


def test_a_long_log_is_thinned_and_keeps_its_end(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "tokens_seen": step, "loss": 1.0}) for step in range(1, 20_001)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = new_rows(tmp_path, "")["rows"]
    assert 1000 < len(rows) <= 1501
    assert rows[-1]["step"] == 20_000
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})


def test_a_missing_log_and_invalid_cursors_are_accepted(tmp_path: Path) -> None:
    assert new_rows(tmp_path, "")["rows"] == []
    log(tmp_path).after_step(report(1))
    for cursor in ("x", "-", "1-2-3", "99-99", "-5", "0-" + "9" * 40):
        assert len(new_rows(tmp_path, cursor)["rows"]) == 1


def test_the_last_sample_of_a_step_counts(tmp_path: Path) -> None:
    samples = SampleLog(tmp_path, Ranks())
    samples.add(10, "first", bpb=3.0)
    samples.add(20, "before a kill", bpb=2.5)
    samples.add(20, "<b>again</b>\n", bpb=2.4)
    assert plan_and_samples(tmp_path) == {
        "plan": {},
        "samples": [{"step": 10, "bpb": 3.0, "text": "first"}, {"step": 20, "bpb": 2.4, "text": "<b>again</b>\n"}],
    }


def test_only_rank_0_writes_samples(tmp_path: Path) -> None:
    SampleLog(tmp_path, Ranks(rank=1, size=2)).add(10, "twice")
    assert list(tmp_path.iterdir()) == []
