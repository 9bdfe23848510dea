"""The hardware of an estimate on this machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from family_shapes import small
from groundup.commands import plan
from groundup.commands.plan import PlanConfig
from groundup.core.console import Console
from groundup.kernels import Machine
from groundup.model.flops import training_bytes
from groundup.train.measurement import calibration
from groundup.train.trainer import Trainer

TINY = small("llama")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with 80 GB of memory and 600 TFLOP/s."""
    monkeypatch.setattr(calibration, "default_device", lambda: "cuda")
    monkeypatch.setattr(calibration, "fastest_dtype", lambda _: ("bfloat16", 5e14))
    monkeypatch.setattr(
        calibration, "sustained_flops", lambda device, dtype: {("cuda", torch.bfloat16): 6e14}[device, dtype]
    )
    monkeypatch.setattr(calibration, "memory_bytes", lambda device: {"cuda": 8 * 10**10}[device])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")


@pytest.mark.usefixtures("gpu")
def test_an_estimate_on_a_gpu_names_the_gpu() -> None:
    """The steps were measured on the GPU, but the table named the CPU and its memory."""
    shown: list[str] = []
    facts = plan.run(PlanConfig(tokens=1e9, measure=False), console=Console(quiet=True), on_text=shown.append)
    assert facts["hardware"]["name"] == "NVIDIA H100"
    assert facts["hardware"]["basis"] == "half of the matmul throughput of 600.00 TFLOP/s"
    assert "on NVIDIA H100" in shown[0]


@pytest.mark.usefixtures("gpu")
def test_a_model_that_exceeds_the_memory_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step of a 7B model is fast enough on a GPU with 80 GB, but building the model was an OutOfMemoryError."""
    monkeypatch.setattr(calibration, "_measure", lambda *_: pytest.fail("measured"))
    facts = plan.run(PlanConfig(parameters=7e9), console=Console())
    assert facts["hardware"]["basis"].startswith("half of the matmul throughput")
    assert "too large for a measurement" in capsys.readouterr().err


def test_the_benchmark_is_announced_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first plan compiled the C++ kernels for many seconds before it printed a line."""

    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("groundup.train.measurement.training_text.read_training_text", stop)
    with pytest.raises(KeyboardInterrupt):
        plan.run(PlanConfig(text=tmp_path, minutes=1), console=Console())
    assert "compiles the C++ kernels" in capsys.readouterr().err


def test_measured_steps_have_only_the_rows_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("cpu", "float32", compile=False, threads=1, matmul_flops=1e9)
    monkeypatch.setattr(calibration, "measured_machine", lambda *_: machine)
    monkeypatch.setattr(Trainer, "max_rows", lambda _, batch_of, at_most: min(at_most, len(batch_of(2).input_ids)))
    found = calibration._measure(TINY, 8)
    assert found is not None
    assert (found.rows, found.native) == (2, False)


@pytest.mark.parametrize("peak", [10**9, -1])
def test_the_memory_formula_is_the_one_of_the_measured_kernels(monkeypatch: pytest.MonkeyPatch, peak: int) -> None:
    """The C++ library loads, but training does not use it because fp32 is faster."""
    found = calibration._Measurement([100.0, 100.0], 4, peak, native=False, busy=False)
    monkeypatch.setattr(calibration, "default_device", lambda: "cpu")
    monkeypatch.setattr(calibration, "machine_rates", lambda: SimpleNamespace(flops={"float32": 1e12}))
    monkeypatch.setattr(calibration, "native_library", object)
    monkeypatch.setattr(calibration, "_measure", lambda *_: found)
    planned: Any = SimpleNamespace(model=TINY, micro_batch_size=4)
    hardware = calibration.this_machine(lambda _: planned, measure=True, console=Console(quiet=True))
    idle = calibration.IDLE_BYTES + calibration.COMPILER_BYTES
    assert not hardware.native
    assert hardware.peak_bytes(TINY, 4) == (peak if peak > 0 else training_bytes(TINY, 4) + idle)
