"""Measurement of the tokens per second of all programs in interleaved rounds.

The throughput of matmuls is measured between the programs, because MFU is relative to it. The peak of matmul
instructions is measured once per round.
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
from benchmarks.pretrain.peak import Peak, PeakProbe
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
        flops: Model FLOPs per second.
        mfu: Model FLOPs utilization, as a fraction.
        peak_share: `flops` divided by the peak of instructions with operands in registers. Empty without a probe.
        warm_seconds: Time in seconds from the start of the process to the end of step 1, with a filled kernel cache.
        peak_bytes: Peak resident memory on a CPU, or peak allocated memory on a GPU, in bytes.
        failure: Error message if the program failed, otherwise empty.
    """

    contender: Contender
    cold_seconds: float | None = None
    parameters: int = 0
    matmul_parameters: int = 0
    tokens_per_second: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    mfu: list[float] = field(default_factory=list)
    peak_share: list[float] = field(default_factory=list)
    warm_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    failure: str | None = None


@dataclass(slots=True)
class Ceilings:
    """Throughput of the machine. Each list has one item per round.

    Attributes:
        matmul: Median matmul throughput of the faster dtype in FLOP/s.
        peak: Peak of matmul instructions. Empty without a probe.
    """

    matmul: list[float] = field(default_factory=list)
    peak: list[Peak] = field(default_factory=list)


def time_shape(
    shape: Shape,
    contenders: Sequence[Contender],
    runner: ProcessRunner,
    tokens: Path,
    *,
    device: str,
    rounds: int,
    seconds: float,
    warmup_steps: int,
    min_steps: int,
    family: str,
    compiled: bool,
    probe: PeakProbe | None,
    deadline: float | None,
    log: Log,
) -> tuple[list[Timing], Ceilings]:
    """Measure all programs. Before the first round, each program compiles its kernels once per dtype.

    Args:
        shape: Shape of the model and batch size.
        contenders: The programs and their modes.
        runner: The runner that starts the processes.
        tokens: Directory of token shards.
        device: "cpu" or "cuda".
        rounds: Number of rounds.
        seconds: Duration in seconds of the measured steps of a program in each round.
        warmup_steps: Number of steps before the measured steps.
        min_steps: Minimum number of measured steps.
        family: Model family of groundup.
        compiled: Whether an earlier command has already compiled the kernels. If so, the compile runs are skipped.
        probe: Measures the peak of matmul instructions.
        deadline: Value of `time.time()` after which no round may end, except the first round. If None, all rounds run.
        log: A function that prints a line.

    Returns:
        The measurements of all programs and of the machine.
    """
    timings = [Timing(contender) for contender in contenders]
    for entry in _first_of_each_cache(timings) if not compiled else []:
        result = _run(entry, shape, runner, tokens, device, family, {"warmup_steps": 1, "min_steps": 1})
        if result:
            entry.cold_seconds = result["to_first_step_seconds"]
        log(f"shape {shape.name}, {entry.contender.name}: {_outcome(entry, result)}")
    ceilings = Ceilings()
    round_seconds = 0.0
    for number in range(rounds):
        started = time.time()
        if number and deadline is not None and started + round_seconds > deadline:
            log(f"shape {shape.name}: {number} instead of {rounds} rounds, because of --limit")
            break
        active = [entry for entry in timings if entry.failure is None]
        rotated = active[number % len(active) :] + active[: number % len(active)] if active else []
        matmul_speeds = [matmul_flops(device)]
        rates: list[tuple[Timing, float]] = []
        for entry in rotated:
            clock = {"warmup_steps": warmup_steps, "min_steps": min_steps, "seconds": seconds}
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
        ceilings.matmul.append(statistics.median(matmul_speeds))
        if probe and (peak := probe.measure()):
            ceilings.peak.append(peak)
        for entry, rate in rates:
            entry.flops.append(rate * shape.flops_per_token(entry.matmul_parameters))
            entry.mfu.append(entry.flops[-1] / ceilings.matmul[-1])
            if ceilings.peak:
                entry.peak_share.append(entry.flops[-1] / ceilings.peak[-1].registers)
        round_seconds = time.time() - started
    return timings, ceilings


def _cache_of(contender: Contender) -> str:
    """Return the name of the kernel cache. Programs with the same code and dtype need the same kernels."""
    return f"{contender.driver}-{contender.dtype}"


def _first_of_each_cache(timings: Sequence[Timing]) -> list[Timing]:
    """Return the first program of each kernel cache."""
    return list({_cache_of(entry.contender): entry for entry in reversed(timings)}.values())[::-1]


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
        fused=contender.group == "optimized",
        variant="no document masking" if contender.group == "unmasked" else "baseline",
    )
    name = f"speed-{shape.name}-{contender.name}".replace(" ", "-").replace(",", "")
    environment = runner.environment(f"speed-{shape.name}-{_cache_of(contender)}", contender.environment)
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
