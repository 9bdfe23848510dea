"""A model is looked into while it learns: as its newest checkpoint has it, and again when there is a newer one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.core.artifact import begin
from groundup.core.errors import DataError
from groundup.core.files import write_json
from groundup.model import Transformer
from groundup.optim import Optimizer, OptimizerConfig
from groundup.studio import Home, Shelf
from groundup.studio.shelf import open_live
from groundup.tokenizer import Tokenizer
from groundup.train import Checkpoints, Progress
from groundup.train.planner import Plan


@pytest.fixture
def learning(tmp_path: Path, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> tuple[Path, Transformer]:
    """A run whose pretraining has saved nothing yet, and the model that it trains."""
    model = tiny_model(tokenizer.vocab_size, tie_embeddings=True)  # which a checkpoint has once
    run = tmp_path / "runs" / "some"
    tokenizer.save(run / "tokens" / "tokenizer")
    begin(run / "base", "pretrain", {}, {})
    plan = Plan(model.config, OptimizerConfig(), 1, 1, 100, 1, 1, 1.0)
    write_json(run / "base" / "plan.json", {"machine": {}, "plan": plan.to_json()})
    return run / "base", model


def save(directory: Path, model: Transformer, step: int) -> None:
    optimizer = Optimizer(model.requires_grad_(True), OptimizerConfig())
    Checkpoints(directory / "checkpoints", model, optimizer, plan_digest="p").save(Progress(step=step))


def test_it_is_opened_again_when_it_has_learned_more(
    learning: tuple[Path, Transformer], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    directory, model = learning
    home = Home(tmp_path / "runs", tmp_path)
    assert home.models() == []  # nothing to look into yet
    with pytest.raises(DataError, match="no checkpoint"):
        open_live(directory)
    ids = torch.tensor([tokenizer.encode("The import system")])
    shelf = Shelf(home, lambda _: pytest.fail("a model in training is no finished model"))
    for step in (5, 9):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
        save(directory, model, step)
        assert [(seen.name, seen.step) for seen in home.models()] == [("some/base", step)]
        volume = shelf.volume("some/base")
        assert volume.step == step
        torch.testing.assert_close(volume.served.engine.model(ids), model(ids))
    assert shelf.volume("some/base") is volume
    shelf.close()
