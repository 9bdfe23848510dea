"""Tokens per second: interleaved rounds over all contenders, bf16 products timed between them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.pretrain.contenders import Contender
from benchmarks.pretrain.job import Job
from benchmarks.pretrain.processes import ContenderError, Workplace, product_flops
from benchmarks.pretrain.shapes import Shape

Say = Callable[[str], None]


@dataclass(slots=True)
class Timed:
    """What the rounds gave for one contender; the lists have one item a round.

    Attributes:
        cold_seconds: from the start of the process to the end of step 1, with nothing compiled before.
        warm_seconds: the same in the rounds.
        peak_bytes: resident memory at most (GPU: allocated).
        failure: why it dropped out; None when it did not.
    """

    contender: Contender
    cold_seconds: float | None = None
    parameters: int = 0
    product_parameters: int = 0
    tokens_per_second: list[float] = field(default_factory=list)
    mfu: list[float] = field(default_factory=list)
    warm_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    failure: str | None = None


def time_shape(
    shape: Shape,
    contenders: Sequence[Contender],
    place: Workplace,
    tokens: Path,
    *,
    device: str,
    rounds: int,
    seconds: float,
    family: str,
    compiled: bool,
    say: Say,
) -> tuple[list[Timed], list[float]]:
    """Time everyone; a first pass, which is timed apart, compiles.

    Args:
        compiled: an earlier run left its kernels here: no first pass.

    Returns:
        What each contender did, and the median bf16 product of each round, FLOP/s.
    """
    timed = [Timed(contender) for contender in contenders]
    for entry in timed if not compiled else []:
        result = _run(entry, shape, place, tokens, device, family, {"warmup_steps": 1, "least_steps": 1})
        if result:
            entry.cold_seconds = result["to_first_step_seconds"]
        say(f"shape {shape.name}, {entry.contender.name}: {_outcome(entry, result)}")
    products: list[float] = []
    for number in range(rounds):
        alive = [entry for entry in timed if entry.failure is None]
        turned = alive[number % len(alive) :] + alive[: number % len(alive)] if alive else []
        speeds = [product_flops(device)]
        rates: list[tuple[Timed, float]] = []
        for entry in turned:
            clock = {"warmup_steps": 3, "least_steps": 3, "seconds": seconds}
            result = _run(entry, shape, place, tokens, device, family, clock)
            speeds.append(product_flops(device))
            if result:
                rate = result["steps"] * shape.step_tokens / result["seconds"]
                rates.append((entry, rate))
                entry.tokens_per_second.append(rate)
                entry.warm_seconds.append(result["to_first_step_seconds"])
                entry.peak_bytes.append(result["peak_bytes"])
                say(f"shape {shape.name}, round {number + 1}, {entry.contender.name}: {rate:,.0f} tokens/s")
            else:
                say(f"shape {shape.name}, round {number + 1}, {entry.contender.name}: {entry.failure}")
        products.append(statistics.median(speeds))
        for entry, rate in rates:
            entry.mfu.append(rate * shape.flops_per_token(entry.product_parameters) / products[-1])
    return timed, products


def _run(
    entry: Timed, shape: Shape, place: Workplace, tokens: Path, device: str, family: str, clock: dict[str, Any]
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
    environment = place.environment(name, contender.environment)
    request = {"job": job.to_json(), "clock": {"started": time.time(), **clock}}
    try:
        result = place.work(name, request, environment)
    except ContenderError as error:
        entry.failure = str(error)
        return None
    entry.parameters, entry.product_parameters = result["parameters"], result["product_parameters"]
    return result


def _outcome(entry: Timed, result: dict[str, Any] | None) -> str:
    if result is None:
        return f"left out, {entry.failure}"
    return f"compiled, step 1 done after {entry.cold_seconds:.0f} s; {entry.parameters / 1e6:.1f} M parameters"
