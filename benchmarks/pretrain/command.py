"""`groundup pretrain` as a person starts it, watched from outside."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pretrain.processes import ContenderError, Workplace

_LOOK = 0.02  # seconds between looks at the log of metrics


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of a run; times are from the start of the process.

    Attributes:
        to_first_step_seconds: until step 1 stood in metrics.jsonl.
        seconds: until the process was gone.
        said: what it printed before step 1, with the second at which each line was seen.
    """

    to_first_step_seconds: float
    seconds: float
    said: list[tuple[float, str]]


def pretrain(
    place: Workplace, name: str, out: Path, arguments: Sequence[str], cache: Path, *, stop_after: int | None = None
) -> Watched:
    """Run the command in its own process.

    Args:
        out: directory of the model; must not hold one.
        arguments: all but --out.
        cache: the user's cache directory, where the compiled kernels are kept.
        stop_after: terminate it when so many steps are done.

    Raises:
        ContenderError: it ended before step 1, or badly.
    """
    command = [sys.executable, "-m", "groundup", "pretrain", *arguments, "--out", str(out)]
    log, metrics = place.log(name), out / "metrics.jsonl"
    environment = _own_cache(place.environment("unused"), cache)
    first: float | None = None
    said: list[tuple[float, str]] = []
    started = time.time()
    stopped = False
    with log.open("w") as output, ExitStack() as at_the_end:
        process = subprocess.Popen(
            command, cwd=place.directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        at_the_end.callback(process.kill)  # this program may be told to end in the middle
        while process.poll() is None:
            now = time.time() - started
            done = _lines(metrics)
            if first is None:
                printed = _lines(log)
                said += [(now, line) for line in printed[len(said) :]]
                if done:
                    first = now
            if stop_after is not None and len(done) >= stop_after and not stopped:
                process.terminate()  # a shell may have told its children to ignore Ctrl-C
                stopped = True
            if now > place.patience:
                process.kill()
            time.sleep(_LOOK)
    seconds = time.time() - started
    if first is None or (process.returncode and not stopped):
        raise ContenderError(f"exit {process.returncode}; {log}")
    return Watched(first, seconds, said)


def _own_cache(environment: Mapping[str, str], cache: Path) -> dict[str, str]:
    """With the program's own choice of where kernels are kept, within `cache`."""
    kept = {key: value for key, value in environment.items() if key != "TORCHINDUCTOR_CACHE_DIR"}
    return kept | {"XDG_CACHE_HOME": str(cache)}


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.is_file() else []
