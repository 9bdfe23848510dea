"""Checkpoints: a resumed run draws the same random numbers as an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groundup.optim import Optimizer, OptimizerConfig
from groundup.train import Checkpoints, Progress

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")],
)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_dropout_continues_after_a_resume(tmp_path: Path, device: str) -> None:
    """The GPU has its own random number generator, which was once reset at each resume."""
    model = torch.nn.Linear(3, 3).to(device)
    checkpoints = Checkpoints(tmp_path, model, Optimizer(model, OptimizerConfig()), plan_digest="p")
    checkpoints.save(Progress(step=1))
    texts = torch.ones(64, device=device)
    expected = torch.dropout(texts, 0.5, train=True)
    torch.manual_seed(1)
    checkpoints.restore()
    assert torch.equal(torch.dropout(texts, 0.5, train=True), expected)
    saved = load_file(tmp_path / "step-00000001" / "random.safetensors")
    assert saved.keys() == ({"cpu"} if device == "cpu" else {"cpu", "cuda-0"})
