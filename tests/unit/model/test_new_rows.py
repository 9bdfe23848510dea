"""Trained rows of new tokens in a frozen model: untrained rows change nothing, and only new rows are trained."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from groundup.model import Transformer
from groundup.model.lora import LoRA, add_lora, fuse_lora
from groundup.model.new_rows import fuse_new_rows, train_new_rows
from groundup.optim import Optimizer, OptimizerConfig

FIRST = 60
IDS = torch.arange(40, 64).repeat(2, 1)
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize("tied", [True, False])
def test_only_new_rows_are_trained_and_fusing_removes_the_transform(
    tiny_model: Callable[..., Transformer], tied: bool
) -> None:
    model = tiny_model(64, tie_embeddings=tied)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = model(IDS)
    add_lora(model, LoRA(rank=2))
    train_new_rows(model, FIRST)
    assert torch.equal(model(IDS), before)
    rows = [p for name, p in model.named_parameters() if p.requires_grad and ".layers." not in name]
    assert [tuple(p.shape) for p in rows] == [(4, 32)] * (1 if tied else 2)
    probe_module = copy.deepcopy(model)  # speed is measured on a copy of the model
    for learner in (probe_module, model):
        optimizer = Optimizer(learner, OptimizerConfig(matrices="adamw"))
        for _ in range(3):
            learner(IDS, labels_BT=IDS.roll(-1, 1)).backward()
            optimizer.step(1.0)
    unmerged = model(IDS)
    torch.testing.assert_close(unmerged, probe_module(IDS), atol=0, rtol=0)
    fuse_lora(model)
    fuse_new_rows(model)
    torch.testing.assert_close(model(IDS), unmerged, atol=1e-5, rtol=1e-5)
    left = model.state_dict()
    assert list(left) == list(base) and (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    for name in (EMBEDDINGS, HEAD):
        assert torch.equal(left[name][:FIRST], base[name][:FIRST])
        assert not torch.isclose(left[name][FIRST:], base[name][FIRST:]).all(1).any()


def test_gradients_equal_a_fully_trained_model(tiny_model: Callable[..., Transformer]) -> None:
    """Also with z-loss and tied embeddings, whose rows get gradients as embedding and as head."""
    whole, model = tiny_model(64, tie_embeddings=True), tiny_model(64, tie_embeddings=True)
    whole.requires_grad_(True)
    model.requires_grad_(False)
    train_new_rows(model, FIRST)
    for each in (whole, model):
        each(IDS, labels_BT=IDS.roll(-1, 1), z_loss=1e-3).backward()
    (rows,) = (p for p in model.parameters() if p.requires_grad)
    assert rows.grad is not None and whole.lm_head.weight.grad is not None
    torch.testing.assert_close(rows.grad, whole.lm_head.weight.grad[FIRST:])
