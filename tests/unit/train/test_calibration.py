"""The hardware of an estimate on this machine."""

from __future__ import annotations

import pytest
import torch

from groundup.commands import plan
from groundup.commands.plan import PlanConfig
from groundup.core.console import Console
from groundup.train import calibration


def test_an_estimate_on_a_gpu_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps were measured on the GPU, but the table named the CPU and its memory."""
    monkeypatch.setattr(calibration, "default_device", lambda: "cuda")
    monkeypatch.setattr(calibration, "fastest_dtype", lambda _: ("bfloat16", 5e14))
    monkeypatch.setattr(
        calibration, "sustained_flops", lambda device, dtype: {("cuda", torch.bfloat16): 6e14}[device, dtype]
    )
    monkeypatch.setattr(calibration, "memory_bytes", lambda device: {"cuda": 8 * 10**10}[device])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    shown: list[str] = []
    facts = plan.run(PlanConfig(tokens=1e9, measure=False), console=Console(quiet=True), on_text=shown.append)
    assert facts["hardware"]["name"] == "NVIDIA H100"
    assert facts["hardware"]["basis"] == "half of the matmul throughput of 600.00 TFLOP/s"
    assert "on NVIDIA H100" in shown[0]
