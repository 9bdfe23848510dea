"""Which rule updates which parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch

from groundup.model import Transformer
from groundup.optim import MATRIX_LR, Optimizer, OptimizerConfig
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
