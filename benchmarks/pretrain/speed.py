"""Measurement of the tokens per second of all programs in interleaved rounds.

The throughput of bf16 matmuls is measured between the programs, because MFU is relative to it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.pretrain.contenders import Contender
from benchmarks.pretrain.job import Job
from benchmarks.pretrain.processes import ContenderError, ProcessRunner, matmul_flops
from benchmarks.pretrain.shapes import Shape

Log = Callable[[str], None]


@dataclass(slots=True)
class Timing:
    """Measurements of one program. Each list has one item per round.

    Attributes:
        contender: The program and its mode.
        cold_seconds: Time in seconds from the start of the process to the end of step 1, with an empty kernel cache.
        parameters: Number of parameters.
        matmul_parameters: Number of parameters in linear layers.
        tokens_per_second: Throughput in tokens per second.
        mfu: Model FLOPs utilization, as a fraction.
        warm_seconds: Time in seconds from the start of the process to the end of step 1, with a filled kernel cache.
        peak_bytes: Peak resident memory on a CPU, or peak allocated memory on a GPU, in bytes.
        failure: Error message if the program failed, otherwise empty.
    """

    contender: Contender
    cold_seconds: float | None = None
    parameters: int = 0
    matmul_parameters: int = 0
    tokens_per_second: list[float] = field(default_factory=list)
    mfu: list[float] = field(default_factory=list)
    warm_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    failure: str | None = None


def time_shape(
    shape: Shape,
    contenders: Sequence[Contender],
    runner: ProcessRunner,
    tokens: Path,
    *,
    device: str,
    rounds: int,
    seconds: float,
    family: str,
    compiled: bool,
    log: Log,
) -> tuple[list[Timing], list[float]]:
    """Measure all programs. Before the first round, each program runs once to compile its kernels.

    Args:
        shape: Shape of the model and batch size.
        contenders: The programs and their modes.
        runner: The runner that starts the processes.
        tokens: Directory of token shards.
        device: "cpu" or "cuda".
        rounds: Number of rounds.
        seconds: Duration in seconds of the measured steps of a program in each round.
        family: Model family of groundup.
        compiled: Whether an earlier command has already compiled the kernels. If so, the compile runs are skipped.
        log: A function that prints a line.

    Returns:
        The measurements, and the median bf16 matmul throughput of each round in FLOP/s.
    """
    timings = [Timing(contender) for contender in contenders]
    for entry in timings if not compiled else []:
        result = _run(entry, shape, runner, tokens, device, family, {"warmup_steps": 1, "min_steps": 1})
        if result:
            entry.cold_seconds = result["to_first_step_seconds"]
        log(f"shape {shape.name}, {entry.contender.name}: {_outcome(entry, result)}")
    matmuls: list[float] = []
    for number in range(rounds):
        active = [entry for entry in timings if entry.failure is None]
        rotated = active[number % len(active) :] + active[: number % len(active)] if active else []
        matmul_speeds = [matmul_flops(device)]
        rates: list[tuple[Timing, float]] = []
        for entry in rotated:
            clock = {"warmup_steps": 3, "min_steps": 3, "seconds": seconds}
            result = _run(entry, shape, runner, tokens, device, family, clock)
            matmul_speeds.append(matmul_flops(device))
            if result:
                rate = result["steps"] * shape.step_tokens / result["seconds"]
                rates.append((entry, rate))
                entry.tokens_per_second.append(rate)
                entry.warm_seconds.append(result["to_first_step_seconds"])
                entry.peak_bytes.append(result["peak_bytes"])
                log(f"shape {shape.name}, round {number + 1}, {entry.contender.name}: {rate:,.0f} tokens/s")
            else:
                log(f"shape {shape.name}, round {number + 1}, {entry.contender.name}: {entry.failure}")
        matmuls.append(statistics.median(matmul_speeds))
        for entry, rate in rates:
            entry.mfu.append(rate * shape.flops_per_token(entry.matmul_parameters) / matmuls[-1])
    return timings, matmuls


def _run(
    entry: Timing, shape: Shape, runner: ProcessRunner, tokens: Path, device: str, family: str, clock: dict[str, Any]
) -> dict[str, Any] | None:
    contender = entry.contender
    job = Job(
        contender.driver,
        shape,
        tokens,
        contender.dtype,
        device=device,
        checkout=contender.checkout,
        family=family,
        matrices="muon" if contender.group == "muon" else "adamw",
    )
    name = f"speed-{shape.name}-{contender.name}".replace(" ", "-").replace(",", "")
    environment = runner.environment(name, contender.environment)
    request = {"job": job.to_json(), "clock": {"started": time.time(), **clock}}
    try:
        result = runner.run_worker(name, request, environment)
    except ContenderError as error:
        entry.failure = str(error)
        return None
    entry.parameters, entry.matmul_parameters = result["parameters"], result["matmul_parameters"]
    return result


def _outcome(entry: Timing, result: dict[str, Any] | None) -> str:
    if result is None:
        return f"skipped, {entry.failure}"
    return f"compiled, step 1 done after {entry.cold_seconds:.0f} s; {entry.parameters / 1e6:.1f} M parameters"
