"""Measure the training speed of this machine with real steps, for estimates."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.core.console import Console
from groundup.core.environment import OtherLoad
from groundup.core.errors import ResourceError
from groundup.inference.prediction import machine_rates
from groundup.kernels.machine import default_device, fastest_dtype, sustained_flops
from groundup.kernels.memory import Peak, memory_bytes
from groundup.kernels.native_library import native_library
from groundup.model import ModelConfig, Transformer, init_weights
from groundup.model.flops import COMPILER_BYTES, IDLE_BYTES, flops_per_token
from groundup.optim import MATRIX_LR, OptimizerConfig
from groundup.train.measurement.machine import measured_machine, with_measured_kernels
from groundup.train.measurement.prediction_history import device_key, device_name, read_runs, speed_ratio
from groundup.train.objectives import NextToken
from groundup.train.planner.estimate import Estimate
from groundup.train.planner.hardware import Hardware
from groundup.train.planner.plan import EXPECTED_UTILIZATION, MAX_MEASUREMENTS, OVERHEAD_FRACTION
from groundup.train.run import training_run
from groundup.train.settings import PretrainingSettings
from groundup.train.trainer import Trainer

_REPEATS = 4
_SECONDS = 25.0  # time after which a measurement is not repeated
_MAX_STEP_SECONDS = 4.0  # estimated time of a step above which nothing is measured
_MIN_SPREAD = 0.05
_UNMEASURED_SPREAD = 0.5
_BUSY_ERROR = 0.25  # additional relative error if other processes use the CPU
_BUSY_SPREAD = 0.15  # relative variation between repeats of the same steps that other load causes
# Bytes that a pretraining process needs in addition to a process that measures steps: libraries that read the text, and
# code and buffers of validation and checkpoints.
_PRETRAINING_BYTES = 75_000_000
_TOO_LARGE = "The model is too large for a measurement on this machine; the time is a rough estimate."


@dataclass(frozen=True, slots=True)
class _RandomBatch:
    """Random tokens, one document per row. All tensors have shape (B, T)."""

    input_ids: Tensor
    labels: Tensor
    positions: Tensor
    document_ids: Tensor


@dataclass(frozen=True, slots=True)
class _Measurement:
    """Measured training steps.

    Attributes:
        speeds: Tokens per second of each repeat.
        rows: Number of rows of a step.
        peak: Peak memory of a training process in bytes, or -1 if it is unknown.
        native: Whether the steps used the C++ kernels.
        busy: Whether other processes used the CPU.
    """

    speeds: list[float]
    rows: int
    peak: int
    native: bool
    busy: bool


def this_machine(choose: Callable[[Hardware], Estimate], *, measure: bool, console: Console) -> Hardware:
    """Return the GPU or CPU of this machine with its training throughput.

    At most `MAX_MEASUREMENTS` kinds of steps are measured, for less than a minute in total. The result is corrected by
    the ratio of measured to predicted throughput of earlier runs.

    Args:
        choose: Returns the run that is planned for a throughput. Its steps are measured.
        measure: Whether to measure training steps. Otherwise, the throughput is derived from matmuls.
        console: Console for notes and warnings.
    """
    device = default_device()
    ratio, variation, count = speed_ratio(read_runs(device_key(device, torch.get_num_threads())))
    hardware = _unmeasured(device)
    measured: set[tuple[ModelConfig, int]] = set()  # with the number of rows, on which the speed depends
    if measure:
        console.note("Measuring training steps on this machine, for up to a minute.")
    while measure and len(measured) < MAX_MEASUREMENTS:
        planned = choose(hardware)
        config, rows = planned.model, planned.micro_batch_size
        if (config, rows) in measured:
            break
        measured.add((config, rows))
        rows = _affordable_rows(hardware, config, rows)
        found = _measure(config, rows) if rows else None
        if found is None:
            console.warn(_TOO_LARGE)
            break
        speed = statistics.median(found.speeds)
        spread = (max(found.speeds) - min(found.speeds)) / speed
        busy = found.busy or spread > _BUSY_SPREAD
        if busy:
            console.warn("Other processes use this machine, so training may be slower or faster than measured.")
        corrected = f", times {ratio:.2f} in the last {count} runs" if count else ""
        uncorrected = replace(hardware, native=found.native, memory_offset=0)
        hardware = replace(
            uncorrected,
            flops=speed * flops_per_token(config) * (1 - OVERHEAD_FRACTION) * ratio,
            spread=max(_MIN_SPREAD, spread, variation) + (_BUSY_ERROR if busy else 0),
            memory_offset=found.peak - uncorrected.peak_bytes(config, found.rows)
            if found.peak > 0 and not found.native  # The estimate for the C++ kernels includes the rest of the process.
            else _idle_bytes(device, native=found.native),
            basis=f"{speed:,.0f} tokens/s measured with {config.n_layers} layers{corrected}",
        )
    return hardware


def _affordable_rows(hardware: Hardware, config: ModelConfig, rows: int) -> int:
    """Return the number of rows of a measured step, at most `rows`, or 0 if the step takes too long."""
    while rows > 1 and hardware.seconds(config, rows * config.context_length) > _MAX_STEP_SECONDS:
        rows //= 2
    too_slow = hardware.seconds(config, rows * config.context_length) > _MAX_STEP_SECONDS
    too_big = hardware.memory_bytes is not None and hardware.peak_bytes(config, 1) > hardware.memory_bytes
    return 0 if too_slow or too_big else rows


def _idle_bytes(device: str, *, native: bool) -> int:
    """Return the memory of a process that the estimate of the training memory does not include, in bytes."""
    return IDLE_BYTES + COMPILER_BYTES if device == "cpu" and not native else 0


def _unmeasured(device: str) -> Hardware:
    """Return a device with a training throughput that is derived from matmuls."""
    if device == "cpu":
        peak, native = max(machine_rates().flops.values()), native_library() is not None
    else:
        dtype, _ = fastest_dtype(device)
        peak, native = sustained_flops(device, getattr(torch, dtype)), False
    return Hardware(
        name=device_name(device),
        flops=EXPECTED_UTILIZATION * peak * (1 - OVERHEAD_FRACTION),
        count=1,
        price=None,
        memory_bytes=memory_bytes(device),
        spread=_UNMEASURED_SPREAD,
        basis=f"half of the matmul throughput of {peak / 1e12:.2f} TFLOP/s",
        native=native,
        memory_offset=_idle_bytes(device, native=native),
    )


def _measure(config: ModelConfig, rows: int) -> _Measurement | None:
    """Measure training steps with at most `rows` rows. Return None if one row does not fit into memory."""
    gc.collect()  # The model that was measured earlier is in reference cycles.
    settings, load, began = PretrainingSettings(), OtherLoad(), time.monotonic()
    speeds: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="groundup-plan-") as directory,
        training_run(Path(directory) / "run", console=Console(quiet=True)) as run,
    ):
        machine = with_measured_kernels(measured_machine(settings, run), config, run.ranks)
        model = Transformer(config)
        init_weights(model, 0)
        trainer: Trainer[Transformer, Any] = Trainer(model, NextToken(), settings, run, machine=machine)
        try:
            rows = trainer.max_rows(lambda rows: _random_batch(config, rows, machine.device), rows)
        except ResourceError:
            return None
        batch = _random_batch(config, rows, machine.device)
        peak = Peak(machine.device)
        peak.reset()
        while len(speeds) < 2 or (len(speeds) < _REPEATS and time.monotonic() - began < _SECONDS / 2):
            steps = trainer.steps_per_second(lambda _: batch, OptimizerConfig(MATRIX_LR["muon"]))
            speeds.append(steps * rows * config.context_length)
        used = peak.bytes
    if used > 0 and machine.device == "cpu":
        used += _PRETRAINING_BYTES
    return _Measurement(speeds, rows, used, machine.native, load.busy)


def _random_batch(config: ModelConfig, rows: int, device: str) -> _RandomBatch:
    shape = (rows, config.context_length)
    ids = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(config.context_length).expand(shape).contiguous()
    tensors = (ids, ids.roll(-1, 1), positions, torch.zeros(shape, dtype=torch.long))
    return _RandomBatch(*(tensor.to(device) for tensor in tensors))
