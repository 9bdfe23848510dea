"""The reference throughput for MFU is the best throughput of large matmuls.

In an earlier release, the reference was one small matmul, which was slower than a training step. The printed MFU was
0.79 to 1.17.
"""

from __future__ import annotations

import time

import pytest
import torch

from groundup.kernels import machine, measure_machine
from groundup.train import Speed
from groundup.train.fit import StepReport


def report(seconds: float) -> StepReport:
    return StepReport(1, 10, 8, 8, 1.0, 1.0, seconds, 0.0, {"loss": 1.0}, False, 0)


def test_the_reference_is_the_best_of_large_matmuls(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this simulated machine, larger matmuls have higher throughput, as on real machines."""
    reached = {1024: 1.0e12, 1536: 1.4e12, 2048: 1.9e12}
    monkeypatch.setattr(machine, "_square_flops", lambda device, dtype, size, times=1: reached[size])
    monkeypatch.setattr(machine, "default_device", lambda: "cpu")
    found = measure_machine(native=False, compile=False)
    assert (found.matmul_flops, found.peak_flops) == (1.0e12, 1.9e12)


def test_measuring_takes_little_time() -> None:
    small = machine._square_flops("cpu", torch.float32, 512)
    started = time.perf_counter()
    assert machine.sustained_flops("cpu", torch.float32) > 0
    both = 2 * (1536**3 + 2048**3) / small  # the expected time on a slow machine
    assert time.perf_counter() - started < machine._PEAK_SECONDS + 5 * both


def test_mfu_is_relative_to_the_peak() -> None:
    assert Speed(1e12, 2e12).mfu(report(1.0)) == 0.5
    assert Speed(1e12, None).mfu(report(1.0)) is None
