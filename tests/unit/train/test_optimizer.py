"""Which rule updates which parameter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch

from groundup.model import Transformer
from groundup.optim import MATRIX_LR, Optimizer, OptimizerConfig, newton_schulz
from groundup.optim.optimizer import MatrixOptimizer


@pytest.mark.parametrize("matrices", get_args(MatrixOptimizer))
def test_every_parameter_moves_and_its_state_is_whole(
    tiny_model: Callable[..., Transformer], matrices: MatrixOptimizer
) -> None:
    """A group that no part takes would stay at its first values without a word."""
    model = tiny_model(64, context_length=16).requires_grad_(True)
    optimizer = Optimizer(model, OptimizerConfig(matrix_lr=MATRIX_LR[matrices], matrices=matrices))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ids = torch.arange(32).view(2, 16)
    for _ in range(2):  # matrices that start at zero hide those behind them in the first step
        model(ids, labels_BT=ids.roll(-1, 1)).backward()
        optimizer.step(1.0)
    stuck = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert stuck == []
    kinds = {name.rpartition(".")[2] for name in optimizer.state() if ".layers." in name and "q_proj" in name}
    assert kinds == ({"momentum_buffer"} if matrices == "muon" else {"step", "exp_avg", "exp_avg_sq"})


@pytest.mark.parametrize("matrices", get_args(MatrixOptimizer))
def test_gradients_that_are_scaled_on_the_way_are_what_clipped_ones_are(
    tiny_model: Callable[..., Transformer], matrices: MatrixOptimizer
) -> None:
    """Against torch's own clipping; the second step, of short gradients, must not remember the first's factor."""
    ids = torch.arange(32).view(2, 16)
    models = [tiny_model(64, context_length=16).requires_grad_(True) for _ in range(2)]
    config = OptimizerConfig(matrix_lr=MATRIX_LR[matrices], matrices=matrices)
    in_fp32 = partial(newton_schulz, dtype=torch.float32)  # in bf16 it would magnify what AdamW rounds otherwise
    ours, usual = (Optimizer(model, config, orthogonalize=in_fp32) for model in models)
    for most in (0.01, 1e9, 0.3):
        models[0](ids, labels_BT=ids.roll(-1, 1)).backward()
        parameters = list(models[0].parameters())
        # The same gradients for both: where parts of one cancel out, what is left is how a CPU rounds.
        for mine, other in zip(parameters, models[1].parameters(), strict=True):
            other.grad = None if mine.grad is None else mine.grad.clone()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        assert norm > 0.3
        ours.step(1.0, most / (norm + 1e-6) if norm > most else None)
        torch.nn.utils.clip_grad_norm_(models[1].parameters(), most)
        usual.step(1.0)
        state = usual.state()
        for name, value in ours.state().items():
            torch.testing.assert_close(value, state[name], atol=1e-8, rtol=1e-4, msg=name)
        for (name, mine), theirs in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4, msg=name)
