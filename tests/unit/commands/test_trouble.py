"""If weights are damaged during pretraining, the run recovers if possible, and never saves a broken model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.commands import collect, pretrain, tokenize
from groundup.core.artifact import Artifact
from groundup.core.errors import TrainingError
from groundup.optim import Optimizer
from groundup.train import guard

SHAPE = {"dim": 64, "n_layers": 2, "context_length": 64}


@pytest.fixture
def poisoned_at(
    real_documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Artifact]:
    """Return a function that pretrains for 58 steps, evaluates each step, and damages a weight after a given step."""
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in real_documents))
    source = {"kind": "folder", "path": str(tmp_path / "notes.jsonl")}
    collect.run(collect.CollectConfig(sources=[source], out=tmp_path / "corpus", workers=1))
    tokenize.run(tokenize.TokenizeConfig(corpus=tmp_path / "corpus", vocab_size=512, out=tmp_path / "tokens"))
    monkeypatch.setattr(guard, "MIN_CHECKPOINT_STEPS", 5)
    steps, step = 0, Optimizer.step

    def run(spoiled: int) -> Artifact:
        def poisoned(self: Optimizer, *arguments: Any, **options: Any) -> None:
            nonlocal steps
            step(self, *arguments, **options)
            steps += 1
            if steps == spoiled:
                self._parts[0].param_groups[0]["params"][0].data.fill_(torch.nan)

        monkeypatch.setattr(Optimizer, "step", poisoned)
        length = {"tokens": 120_000, "global_batch_tokens": 2048, "num_evaluations": 60}
        settings = {"shape": SHAPE, "compile": False, "threads": 1, "out": tmp_path / "base", **length}
        return pretrain.run(pretrain.PretrainConfig(token_shards=tmp_path / "tokens", **settings))

    return run


def test_rollback_after_repeated_spikes(
    poisoned_at: Callable[[int], Artifact], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The rollback occurs after eight skipped steps. An evaluation of the damaged weights must not end the run."""
    made = poisoned_at(22)
    said = capfd.readouterr().err
    assert "evaluation skipped" in said
    assert "Rolling back to step 20" in said
    rows = [json.loads(line) for line in (tmp_path / "base" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == made.facts["steps"] + 10  # ten steps are logged twice, because they were repeated


def test_divergence_before_the_last_step(poisoned_at: Callable[[int], Artifact], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="weights are not finite"):
        poisoned_at(55)
    assert not (tmp_path / "base" / "model.safetensors").exists()
