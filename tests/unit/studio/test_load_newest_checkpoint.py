"""Inspection of a model in training: the newest checkpoint is loaded, and reloaded after the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.core.artifact import begin
from groundup.core.errors import DataError
from groundup.core.files import write_json
from groundup.model import Transformer
from groundup.optim import Optimizer, OptimizerConfig
from groundup.studio import StudioModels, Workspace
from groundup.studio.model_cache import InspectedModel, load_newest_checkpoint
from groundup.tokenizer import Tokenizer
from groundup.train import Checkpoints, Progress
from groundup.train.planner import Plan


@pytest.fixture
def training(tmp_path: Path, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> tuple[Path, Transformer]:
    """A pretraining run without a checkpoint, and its model."""
    model = tiny_model(tokenizer.vocab_size, tie_embeddings=True)  # a checkpoint stores tied weights once
    run = tmp_path / "runs" / "some"
    tokenizer.save(run / "tokens" / "tokenizer")
    begin(run / "base", "pretrain", {}, {})
    plan = Plan(model.config, OptimizerConfig(), 1, 1, 100, 1.0, 1, 1)
    write_json(run / "base" / "plan.json", {"machine": {}, "plan": plan.to_json()})
    return run / "base", model


def save(directory: Path, model: Transformer, step: int) -> None:
    optimizer = Optimizer(model.requires_grad_(True), OptimizerConfig())
    Checkpoints(directory / "checkpoints", model, optimizer, plan_digest="p").save(Progress(step=step))


def test_a_model_is_reloaded_after_a_new_checkpoint(
    training: tuple[Path, Transformer], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    directory, model = training
    workspace = Workspace(tmp_path / "runs", tmp_path)
    assert workspace.models() == []
    with pytest.raises(DataError, match="no checkpoint"):
        load_newest_checkpoint(directory)
    ids = torch.tensor([tokenizer.encode("The import system")])
    models = StudioModels(workspace, lambda _: pytest.fail("a model in training is loaded from its checkpoint"))

    async def load() -> InspectedModel:
        async with models.inspect("some/base") as model:
            return model

    for step in (5, 9):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
        save(directory, model, step)
        assert [(info.name, info.step) for info in workspace.models()] == [("some/base", step)]
        loaded = asyncio.run(load())
        assert loaded.step == step
        torch.testing.assert_close(loaded.served.engine.model(ids), model(ids))
    assert asyncio.run(load()).served is loaded.served
    models.close()
