"""Measurement of the time until the first step of `groundup pretrain`, with an empty and with a filled kernel cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pretrain.command import pretrain
from benchmarks.pretrain.processes import ContenderError, ProcessRunner
from benchmarks.pretrain.targets import median_over_rounds

WARM_SECONDS = 10.0  # Target for the time with a filled kernel cache.
_BUDGETS = {"--minutes": "10", "--tokens": "2000000"}
_STEPS = 3  # After the second step, all kernels have been compiled.


def time_start(runner: ProcessRunner, tokens: Path, *, rounds: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Measure `groundup pretrain` with a time budget and with a token budget. Each run is stopped after three steps."""
    report: dict[str, Any] = {}
    for budget, value in _BUDGETS.items():
        cache = runner.directory / "cache" / f"start{budget}"
        shutil.rmtree(cache, ignore_errors=True)

        def start(number: int, budget: str = budget, value: str = value, cache: Path = cache) -> Any:
            name = f"start{budget}-{number}"
            out = runner.directory / "models" / name
            shutil.rmtree(out, ignore_errors=True)
            return pretrain(runner, name, out, [str(tokens), budget, value], cache, stop_after=_STEPS)

        try:
            cold = start(0)
            warm = [start(number + 1).to_first_step_seconds for number in range(rounds)]
        except ContenderError as error:
            log(f"groundup pretrain {budget} {value}: {error}")
            report[budget.removeprefix("--")] = {"failure": str(error)}
            continue
        log(f"groundup pretrain {budget} {value}, cold: step 1 after {cold.to_first_step_seconds:.1f} s. Output:")
        for second, line in cold.output:
            log(f"  {second:5.1f} s  {line}")
        figure = median_over_rounds(warm, WARM_SECONDS, at_least=False)
        log(f"groundup pretrain {budget} {value}, warm: {figure.estimate:.1f} s, {figure.verdict}")
        report[budget.removeprefix("--")] = {
            "cold_seconds": cold.to_first_step_seconds,
            "cold_output": [[round(second, 2), line] for second, line in cold.output],
            "warm_seconds": warm,
            "warm": figure.to_json(),
        }
    return report
