"""Measure the training speed of this machine with real steps, for estimates."""

from __future__ import annotations

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
from groundup.core.environment import OtherLoad, cpu_name
from groundup.inference.prediction import machine_rates
from groundup.kernels.memory import memory_bytes
from groundup.kernels.native_library import native_library
from groundup.model import ModelConfig, Transformer, init_weights
from groundup.model.flops import flops_per_token
from groundup.optim import MATRIX_LR, OptimizerConfig
from groundup.train.machine import measured_machine, with_measured_kernels
from groundup.train.objectives import NextToken
from groundup.train.planner.hardware import Hardware
from groundup.train.planner.plan import EXPECTED_UTILIZATION, MAX_MEASUREMENTS, MICRO_BATCH_TOKENS, OVERHEAD_FRACTION
from groundup.train.prediction_history import device_key, read_runs, speed_ratio
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


@dataclass(frozen=True, slots=True)
class _RandomBatch:
    """Random tokens, one document per row. All tensors have shape (B, T)."""

    input_ids: Tensor
    labels: Tensor
    positions: Tensor
    document_ids: Tensor


def this_machine(choose: Callable[[Hardware], ModelConfig], *, measure: bool, console: Console) -> Hardware:
    """Return this machine with its training throughput.

    At most `MAX_MEASUREMENTS` architectures are measured, for less than a minute in total. The result is corrected by
    the ratio of measured to predicted throughput of earlier runs.

    Args:
        choose: Returns the architecture that is planned for a throughput.
        measure: Whether to measure training steps. Otherwise, the throughput is derived from matmuls.
        console: Console for notes and warnings.
    """
    rates = machine_rates()
    ratio, variation, count = speed_ratio(read_runs(device_key("cpu", torch.get_num_threads())))
    peak = max(rates.flops.values())
    flops = EXPECTED_UTILIZATION * peak * (1 - OVERHEAD_FRACTION)
    basis = f"half of the matmul throughput of {peak / 1e12:.2f} TFLOP/s"
    native = native_library() is not None
    hardware = Hardware(cpu_name(), flops, 1, None, memory_bytes("cpu"), _UNMEASURED_SPREAD, basis, native=native)
    measured: set[ModelConfig] = set()
    if measure:
        console.note("Measuring training steps on this machine, for up to a minute.")
    while measure and len(measured) < MAX_MEASUREMENTS and (config := choose(hardware)) not in measured:
        rows = max(1, MICRO_BATCH_TOKENS // config.context_length)
        while rows > 1 and hardware.seconds(config, rows * config.context_length) > _MAX_STEP_SECONDS:
            rows //= 2
        if hardware.seconds(config, rows * config.context_length) > _MAX_STEP_SECONDS:
            console.warn("The model is too large for a measurement on this machine; the time is a rough estimate.")
            break
        measured.add(config)
        speeds, busy = _throughput(config, rows)
        spread = (max(speeds) - min(speeds)) / statistics.median(speeds)
        busy = busy or spread > _BUSY_SPREAD
        if busy:
            console.warn("Other processes use this machine, so training may be slower or faster than measured.")
        corrected = f", times {ratio:.2f} in the last {count} runs" if count else ""
        hardware = replace(
            hardware,
            flops=statistics.median(speeds) * flops_per_token(config) * (1 - OVERHEAD_FRACTION) * ratio,
            spread=max(_MIN_SPREAD, spread, variation) + (_BUSY_ERROR if busy else 0),
            basis=f"{statistics.median(speeds):,.0f} tokens/s measured with {config.n_layers} layers{corrected}",
        )
    return hardware


def _throughput(config: ModelConfig, rows: int) -> tuple[list[float], bool]:
    """Return measured tokens per second of training steps, and whether other processes used the CPU meanwhile."""
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
        batch = _random_batch(config, rows, machine.device)
        while len(speeds) < 2 or (len(speeds) < _REPEATS and time.monotonic() - began < _SECONDS / 2):
            steps = trainer.steps_per_second(lambda _: batch, OptimizerConfig(MATRIX_LR["muon"]))
            speeds.append(steps * rows * config.context_length)
    return speeds, load.busy


def _random_batch(config: ModelConfig, rows: int, device: str) -> _RandomBatch:
    shape = (rows, config.context_length)
    ids = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(config.context_length).expand(shape).contiguous()
    tensors = (ids, ids.roll(-1, 1), positions, torch.zeros(shape, dtype=torch.long))
    return _RandomBatch(*(tensor.to(device) for tensor in tensors))
