"""Measured steps predict the cost of real steps, and do not change the weights."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from groundup.data import PackedWindows
from groundup.distributed.ranks import Ranks
from groundup.kernels import Machine, prepare_model
from groundup.kernels.memory import Peak
from groundup.model import Transformer
from groundup.model.lora import LoRA, add_lora, lora_layers
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train import Progress, measure_steps
from groundup.train.fit import fit
from groundup.train.objectives import NextToken


def batch_of(rows: int) -> PackedWindows:
    ids = torch.arange(rows * 256).view(rows, 256) % 997
    return PackedWindows(ids, ids, torch.arange(256).expand(rows, 256), torch.zeros_like(ids))


@pytest.fixture
def model(tiny_model: Callable[..., Transformer]) -> Transformer:
    shape = {"dim": 128, "n_layers": 8, "head_dim": 32, "ffn_dim": 512, "context_length": 256}
    return tiny_model(1000, **shape).requires_grad_(True).train()


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("accum", [1, 3])
def test_measured_cost_matches_the_run_and_weights_are_unchanged(model: Transformer, adapted: bool, accum: int) -> None:
    """Estimates by formula were wrong by factors."""
    if adapted:
        add_lora(model, LoRA(rank=4, dropout=0.1))
        for layer in lora_layers(model).values():
            layer.lora_B.data.normal_(std=0.1)
    prepare_model(model, Machine("cpu", "float32", False, 1, 1e11))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    peak = Peak("cpu")
    peak.reset()
    start = peak.now
    batch = batch_of(12)
    optimizer = Optimizer(model, OptimizerConfig())
    found = measure_steps(
        model, NextToken(), batch, batch, optimizer, grad_accum_steps=accum, device="cpu", ranks=Ranks()
    )
    del optimizer
    assert found.seconds > 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())

    if not sys.platform.startswith("linux") or found.bytes < 0:
        pytest.skip("peaks are read from /proc")
    peak.reset()
    optimizer = Optimizer(model, OptimizerConfig())
    schedule = WarmupStableDecay(2, warmup_steps=1, decay_steps=1)
    fit(model, NextToken(), lambda _: batch, optimizer, schedule, progress=Progress(), grad_accum_steps=accum)
    assert found.bytes - start == pytest.approx(peak.bytes - start, rel=0.25)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_largest_batch_gives_the_memory_and_the_typical_one_the_time(model: Transformer) -> None:
    """Batches of texts differ in length, and the longest texts need the most memory."""

    def taken(largest: int, usual: int) -> tuple[float, int]:
        optimizer = Optimizer(model, OptimizerConfig())
        found = measure_steps(
            model, NextToken(), batch_of(largest), batch_of(usual), optimizer, device="cpu", ranks=Ranks()
        )
        return found.seconds, found.bytes

    small, large, mixed = taken(1, 1), taken(24, 24), taken(24, 1)
    assert mixed[0] < 0.7 * large[0]
    if mixed[1] >= 0:
        assert mixed[1] - small[1] > 0.7 * (large[1] - small[1]) > 0
