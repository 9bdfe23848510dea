"""Which optimizer updates which parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch

from groundup.model import Transformer
from groundup.optim import MATRIX_LR, Optimizer, OptimizerConfig, newton_schulz, parameter_groups
from groundup.optim.optimizer import DecaySchedule, MatrixOptimizer


@pytest.mark.parametrize("matrices", get_args(MatrixOptimizer))
def test_every_parameter_is_updated_and_has_state(
    tiny_model: Callable[..., Transformer], matrices: MatrixOptimizer
) -> None:
    """A parameter in none of the groups would silently keep its initial value."""
    model = tiny_model(64, context_length=16).requires_grad_(True)
    optimizer = Optimizer(model, OptimizerConfig(matrix_lr=MATRIX_LR[matrices], matrices=matrices))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ids = torch.arange(32).view(2, 16)
    for _ in range(2):  # zero-initialized matrices block the gradients of earlier ones in the first step
        model(ids, labels_BT=ids.roll(-1, 1)).backward()
        optimizer.step(1.0)
    stuck = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert stuck == []
    kinds = {name.rpartition(".")[2] for name in optimizer.state() if ".layers." in name and "q_proj" in name}
    assert kinds == ({"momentum_buffer"} if matrices == "muon" else {"step", "exp_avg", "exp_avg_sq"})


@pytest.mark.parametrize("matrices", get_args(MatrixOptimizer))
def test_gradients_scaled_by_the_optimizer_match_clipped_ones(
    tiny_model: Callable[..., Transformer], matrices: MatrixOptimizer
) -> None:
    """The reference is torch's clipping. The second step has small gradients and must not reuse the factor of the
    first.
    """
    ids = torch.arange(32).view(2, 16)
    models = [tiny_model(64, context_length=16).requires_grad_(True) for _ in range(2)]
    config = OptimizerConfig(matrix_lr=MATRIX_LR[matrices], matrices=matrices)
    in_fp32 = partial(newton_schulz, dtype=torch.float32)  # bf16 would magnify the rounding differences of AdamW
    ours, usual = (Optimizer(model, config, orthogonalize=in_fp32) for model in models)
    for most in (0.01, 1e9, 0.3):
        models[0](ids, labels_BT=ids.roll(-1, 1)).backward()
        parameters = list(models[0].parameters())
        # Both use the same gradients, because cancellation in them would magnify rounding.
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


@pytest.mark.parametrize("matrices", get_args(MatrixOptimizer))
@pytest.mark.parametrize("schedule", get_args(DecaySchedule))
def test_weight_decay_follows_its_schedule(
    tiny_model: Callable[..., Transformer], matrices: MatrixOptimizer, schedule: DecaySchedule
) -> None:
    """With gradients of 0, weight decay is the only change. The learning rate halves and then falls to a tenth."""
    model = tiny_model(64, context_length=16).requires_grad_(True)
    rates = {"matrix_lr": 0.02, "embedding_lr": 0.01, "head_lr": 0.005}
    decays = {"weight_decay": 2.0, "embedding_weight_decay": 4.0, "weight_decay_schedule": schedule}
    optimizer = Optimizer(model, OptimizerConfig(**rates, **decays, matrices=matrices))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    lr_factors, fractions = (1.0, 0.5, 0.1), (0.0, 0.25, 0.75)
    for lr_factor, fraction in zip(lr_factors, fractions, strict=True):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(lr_factor, fraction=fraction)
    factors = {"learning_rate": lr_factors, "constant": (1.0, 1.0, 1.0), "linear": (0.0, 0.5 * 0.25, 0.1 * 0.75)}
    groups = {id(p): kind for kind, parameters in parameter_groups(model).items() for p in parameters}
    for name, parameter in model.named_parameters():
        decay = {"matrix": 0.02 * 2.0, "embedding": 0.01 * 4.0, "head": 0.005 * 4.0, "vector": 0.0}[
            groups[id(parameter)]
        ]
        left = math.prod(1 - decay * factor for factor in factors[schedule])
        torch.testing.assert_close(parameter.detach(), left * before[name], atol=1e-7, rtol=1e-5, msg=name)
