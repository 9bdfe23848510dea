"""Measurement of the command `groundup pretrain` from another process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pretrain.processes import ContenderError, ProcessRunner

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class CommandTiming:
    """Times of a run in seconds since the start of the process.

    Attributes:
        to_first_step_seconds: Time at which metrics.jsonl contains step 1.
        seconds: Time at which the process ends.
        output: Lines that the process printed before step 1, with their times.
    """

    to_first_step_seconds: float
    seconds: float
    output: list[tuple[float, str]]


def pretrain(
    runner: ProcessRunner, name: str, out: Path, arguments: Sequence[str], cache: Path, *, stop_after: int | None = None
) -> CommandTiming:
    """Run `groundup pretrain` and measure its times.

    Args:
        runner: The runner, which sets the environment and the log directory.
        name: Name of the log file.
        out: Output directory, which must be empty.
        arguments: Arguments of the command, except --out.
        cache: Directory for compiled kernels.
        stop_after: Number of steps after which the process is terminated. If None, the run is not terminated.

    Raises:
        ContenderError: The process failed or ended before step 1.
    """
    command = [*runner.python, "-m", "groundup", "pretrain", *arguments, "--out", str(out)]
    log, metrics = runner.log_path(name), out / "metrics.jsonl"
    environment = _with_cache(runner.environment("unused"), cache)
    first: float | None = None
    lines: list[tuple[float, str]] = []
    started = time.time()
    stopped = False
    with log.open("w") as output, ExitStack() as stack:
        process = subprocess.Popen(
            command, cwd=runner.directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        stack.callback(process.kill)  # in case this program is interrupted
        while process.poll() is None:
            now = time.time() - started
            done = _lines(metrics)
            if first is None:
                printed = _lines(log)
                lines += [(now, line) for line in printed[len(lines) :]]
                if done:
                    first = now
            if stop_after is not None and len(done) >= stop_after and not stopped:
                process.terminate()  # the process may ignore SIGINT
                stopped = True
            if now > runner.timeout_seconds:
                process.kill()
            time.sleep(_POLL_SECONDS)
    seconds = time.time() - started
    if first is None or (process.returncode and not stopped):
        raise ContenderError(f"exit {process.returncode}; {log}")
    return CommandTiming(first, seconds, lines)


def _with_cache(environment: Mapping[str, str], cache: Path) -> dict[str, str]:
    """Return the environment of the process, in which compiled kernels are cached in the directory `cache`."""
    variables = {key: value for key, value in environment.items() if key != "TORCHINDUCTOR_CACHE_DIR"}
    return variables | {"XDG_CACHE_HOME": str(cache)}


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.is_file() else []
