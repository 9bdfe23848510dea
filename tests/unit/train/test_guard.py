"""Loss spikes: harmful steps are skipped, rollbacks work, and resumed runs make the same decisions."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.core.errors import TrainingError
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train import Checkpoints, EverySeconds, MetricsLog, Speed, SpikeGuard, StepReport
from groundup.train import guard as rules
from groundup.train.fit import fit
from groundup.train.objectives import Metrics

STEPS = 320


class Slope:
    """The labels are random, so the loss has a lower bound."""

    def prepare(self, batch: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
        return batch

    def normalizer(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.tensor(len(batch))

    def __call__(self, model: torch.nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        loss = (model(batch[:, :3]) - batch[:, 3:]).square().sum()
        return loss, {"loss": (loss.item(), len(batch))}


def batches(index: int) -> torch.Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(index))


def train(
    directory: Path, strange: dict[int, float], *, stop: int | None = None, spikes: bool = True
) -> dict[str, Any]:
    """A run whose losses are multiplied at the given batches; it resumes from its checkpoint."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    optimizer = Optimizer(model, OptimizerConfig(vector_lr=0.01, head_lr=0.01))
    checkpoints, good = (
        Checkpoints(d, model, optimizer, plan_digest="p") for d in (directory / "state", directory / "state" / "good")
    )
    progress = checkpoints.restore()
    said: list[str] = []
    guard = SpikeGuard(progress, lambda p: good.save(p, keep=1), good.restore, said.append, spikes=spikes)
    log = directory / "metrics.jsonl"
    drawn: list[int] = []

    def batch(index: int) -> torch.Tensor:
        drawn.append(index)
        return batches(index) * strange.get(index, 1.0)

    class KilledError(Exception):
        pass

    class Kill:
        def after_step(self, report: StepReport) -> None:
            if progress.batches == stop:
                raise KilledError

    with contextlib.suppress(KilledError):
        fit(
            model,
            Slope(),
            batch,
            optimizer,
            WarmupStableDecay(STEPS, 2, 100),
            progress=progress,
            callbacks=[
                MetricsLog(log, kept_rows=progress.batches, speed=Speed(None, 1.0)),
                guard,
                Kill(),
                EverySeconds(0, lambda r: checkpoints.save(progress) if progress.batches % 29 == 0 else None),
            ],
            guard=guard,
        )
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        del row["seconds"], row["waited"]
    return {"weights": model.weight.detach().clone(), "rows": rows, "said": said, "drawn": drawn, "progress": progress}


@pytest.mark.parametrize("factor", [math.nan, math.inf, 100.0])
def test_harmful_steps_are_skipped_and_logged(tmp_path: Path, factor: float) -> None:
    found = train(tmp_path, {200: factor})
    assert [row["step"] for row in found["rows"] if row.get("skipped")] == [201]
    assert [row["step"] for row in found["rows"]] == list(range(1, STEPS + 1))
    assert found["weights"].isfinite().all()
    assert len(found["said"]) == 1
    assert "Skipping step 201" in found["said"][0]
    json.loads(json.dumps(found["rows"], allow_nan=False))  # NaN is not valid JSON


def test_a_run_without_spikes_is_not_changed(tmp_path: Path) -> None:
    guarded = train(tmp_path / "guarded", {})
    free = train(tmp_path / "free", {}, spikes=False)
    assert torch.equal(guarded["weights"], free["weights"])
    assert guarded["rows"] == free["rows"]
    assert guarded["said"] == []


def test_rollback_reads_new_text_and_a_killed_run_does_the_same(tmp_path: Path) -> None:
    strange = {150: math.nan, **dict.fromkeys(range(230, 260), 50.0)}
    whole = train(tmp_path / "whole", strange)
    assert whole["drawn"] == list(range(whole["progress"].batches))  # no batch is read twice
    assert whole["progress"].rollbacks >= 1
    steps = [row["step"] for row in whole["rows"]]
    back = next(i for i in range(1, len(steps)) if steps[i] <= steps[i - 1])
    assert steps[back] == 201  # the last good checkpoint was at step 200
    assert whole["rows"][back]["lr_factor"] == 0.5
    assert steps[-1] == STEPS
    for stop in (120, 201, 232, 237, 238, 239, 300):  # around the spikes, the rollback, and the good checkpoints
        train(tmp_path / "cut", strange, stop=stop)
    cut = train(tmp_path / "cut", strange)
    assert cut["rows"] == whole["rows"]
    assert torch.equal(cut["weights"], whole["weights"])


def test_a_run_that_keeps_diverging_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"after {rules.MAX_ROLLBACKS} rollbacks"):
        train(tmp_path / "late", dict.fromkeys(range(130, 10000), math.nan))
    with pytest.raises(TrainingError, match="before the first good checkpoint"):
        train(tmp_path / "early", dict.fromkeys(range(3, 10000), math.nan))
