"""Micro-batches that fit into memory are found without coming close to the limit; the batch size per step is kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.core.errors import ResourceError
from groundup.data import PackedWindows
from groundup.distributed import checkpoint_activations
from groundup.distributed.ranks import Ranks
from groundup.kernels import Machine
from groundup.model import Transformer
from groundup.optim import OptimizerConfig
from groundup.train import Trainer, TrainingSettings, find_max_rows, training_run
from groundup.train.objectives import NextToken
from groundup.train.planner import Plan

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")


def batch_of(rows: int) -> PackedWindows:
    ids = torch.arange(rows * 256).view(rows, 256) % 997
    return PackedWindows(ids, ids, torch.arange(256).expand(rows, 256), torch.zeros_like(ids))


@pytest.fixture
def model(tiny_model: Callable[..., Transformer]) -> Transformer:
    """About 9 MB of activations per row."""
    shape = {"dim": 128, "n_layers": 8, "head_dim": 32, "ffn_dim": 512, "context_length": 256}
    return tiny_model(1000, **shape).requires_grad_(True).train()


def probe(model: Transformer, free: int | None, *, max_rows: int = 64, state_bytes: int = 0) -> int:
    seen: list[int] = []

    def counted(rows: int) -> PackedWindows:
        seen.append(rows)
        return batch_of(rows)

    before = [parameter.clone() for parameter in model.parameters()]
    found = find_max_rows(
        model,
        NextToken(),
        counted,
        max_rows=max_rows,
        device="cpu",
        state_bytes=state_bytes,
        ranks=Ranks(),
        free=lambda _: free,
    )
    assert max(seen, default=0) <= 2  # the probe needs little memory at any limit
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None
    return found


def test_more_memory_allows_more_rows_and_the_result_fits(model: Transformer) -> None:
    """With an estimate that is wrong by half, the process is killed."""
    found = [probe(model, megabytes << 20) for megabytes in (150, 300, 100_000)]
    assert 1 <= found[0] < found[1] < found[2] == 64
    assert probe(model, None) == 64


def test_a_model_that_does_not_fit_is_rejected_before_step_one(model: Transformer) -> None:
    with pytest.raises(ResourceError, match="pass of one row needs"):
        probe(model, 300 << 20, state_bytes=1 << 40)


def test_activation_checkpointing_saves_memory(model: Transformer) -> None:
    """The gradient is the same."""
    (NextToken()(model, batch_of(2))[0]).backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    held: dict[str, int] = {}

    def bytes_kept() -> int:
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            NextToken()(model, batch_of(2))
        return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())

    held["plain"] = bytes_kept()
    model.zero_grad()
    checkpoint_activations(model)
    held["checkpointed"] = bytes_kept()
    assert held["checkpointed"] < 0.5 * held["plain"]
    (NextToken()(model, batch_of(2))[0]).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], msg=name)


def test_smaller_micro_batches_keep_the_batch_size(
    model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(*args: Any, max_rows: int, **others: Any) -> int:
        return 3

    monkeypatch.setattr("groundup.train.trainer.find_max_rows", few)
    plan = Plan(model.config, OptimizerConfig(), 8, 2, 100, 1.0, 2, 60)
    machine = Machine("cpu", "float32", False, 1, 1e9)
    with training_run(tmp_path) as run:
        assert run.load_or_make_plan(lambda: (machine, plan)) == (machine, plan, True)
        settled = Trainer(model, NextToken(), TrainingSettings(), run, machine=machine).fit_micro_batches(
            plan, batch_of
        )
    assert (settled.micro_batch_size, settled.grad_accum_steps) == (2, 8)  # 3 does not divide 16
    assert settled.global_batch_tokens == plan.global_batch_tokens
    assert json.loads((tmp_path / "plan.json").read_text())["plan"]["micro_batch_size"] == 2
    with training_run(tmp_path) as run:
        assert run.load_or_make_plan(lambda: pytest.fail("a plan is made once")) == (machine, settled, False)
