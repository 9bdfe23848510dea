"""How soon a run reaches step 1: with nothing compiled before, and again with the kernels that the first start left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pretrain.command import pretrain
from benchmarks.pretrain.processes import ContenderError, Workplace
from benchmarks.pretrain.verdicts import over_rounds

WARM_SECONDS = 10.0  # the bar
_DIALS = {"--minutes": "10", "--tokens": "2000000"}
_STEPS = 3  # the kernel cache is whole after the second step


def time_start(place: Workplace, tokens: Path, *, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Start `groundup pretrain` with each dial that does not fix the shape; stop it when it trains."""
    report: dict[str, Any] = {}
    for dial, value in _DIALS.items():
        cache = place.directory / "cache" / f"start{dial}"
        shutil.rmtree(cache, ignore_errors=True)

        def start(number: int, dial: str = dial, value: str = value, cache: Path = cache) -> Any:
            name = f"start{dial}-{number}"
            out = place.directory / "models" / name
            shutil.rmtree(out, ignore_errors=True)
            return pretrain(place, name, out, [str(tokens), dial, value], cache, stop_after=_STEPS)

        try:
            cold = start(0)
            warm = [start(number + 1).to_first_step_seconds for number in range(rounds)]
        except ContenderError as error:
            say(f"groundup pretrain {dial} {value}: {error}")
            report[dial.removeprefix("--")] = {"failure": str(error)}
            continue
        say(f"groundup pretrain {dial} {value}, cold: step 1 done after {cold.to_first_step_seconds:.1f} s. It says:")
        for second, line in cold.said:
            say(f"  {second:5.1f} s  {line}")
        figure = over_rounds(warm, WARM_SECONDS, at_least=False)
        say(f"groundup pretrain {dial} {value}, warm: {figure.estimate:.1f} s, {figure.verdict}")
        report[dial.removeprefix("--")] = {
            "cold_seconds": cold.to_first_step_seconds,
            "cold_says": [[round(second, 2), line] for second, line in cold.said],
            "warm_seconds": warm,
            "warm": figure.to_json(),
        }
    return report
