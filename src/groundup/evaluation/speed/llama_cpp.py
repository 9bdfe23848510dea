"""Speed of llama.cpp on a GGUF file, measured by llama-bench or through the Python package xllamacpp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Self

from groundup.core.console import visible
from groundup.core.errors import ConfigError, ResourceError
from groundup.inference.speed import SpeedTest

_DRIVER = Path(__file__).parent / "llama_cpp_driver.py"
_BENCH, _BATCHED = "llama-bench", "llama-batched-bench"
_ERROR_CHARACTERS = 1000
INSTALL = "To compare with llama.cpp: put llama-bench on the PATH, or pip install xllamacpp."


def find_llama_cpp(program: Path | None) -> Path | None:
    """Return the program that measures llama.cpp, or None if llama.cpp is not installed.

    Args:
        program: The program llama-bench, or a Python interpreter that has xllamacpp. Default: llama-bench on the PATH,
            otherwise this Python interpreter if it has xllamacpp.

    Returns:
        The path of the program.

    Raises:
        ConfigError: `program` does not exist.
    """
    if program is not None:
        found = shutil.which(program)
        if found is None:
            raise ConfigError(f"--llama-cpp {program}: no such program", fix=INSTALL)
        return Path(found)
    if (found := shutil.which(_BENCH)) is not None:
        return Path(found)
    return Path(sys.executable) if find_spec("xllamacpp") else None


class LlamaCppSpeed:
    """llama.cpp with one GGUF file. Each figure is the better one of the runs with and without flash attention.

    Use it as a context manager, which ends its processes.

    Args:
        program: Result of `find_llama_cpp`.
        file: GGUF file.
        threads: Number of CPU threads.
        tests: All tests that will be run. Contexts are created for the largest one.
        vocab_size: Number of token ids that prompts may contain.
    """

    def __init__(self, program: Path, file: Path, threads: int, tests: Sequence[SpeedTest], vocab_size: int) -> None:
        self._program = program
        self._file = file
        self._threads = threads
        self._vocab_size = vocab_size
        self._largest = max(each.batch_size for each in tests), max(each.sequence_tokens for each in tests)
        self._open = ExitStack()
        self._drivers: dict[int, tuple[subprocess.Popen[str], IO[str]]] = {}
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, test: SpeedTest) -> dict[str, float]:
        """Run a test; see `SpeedTest.run`. Figures that the program does not measure are omitted.

        Raises:
            ResourceError: llama.cpp rejects the file, or it crashes.
        """
        self._number += 1
        if _BENCH not in self._program.name:
            runs = [self._by_driver(test, flash_attention) for flash_attention in (0, 1)]
        elif test.batch_size == 1:
            runs = self._by_bench(test)
        else:
            runs = self._by_batched_bench(test)
        return {
            figure: (min if figure == "first_token" else max)(run[figure] for run in runs)
            for figure in (runs[0] if runs else {})
        }

    def _by_bench(self, test: SpeedTest) -> list[dict[str, float]]:
        if test.output_tokens:
            sizes = ["-p", "0", "-n", str(test.output_tokens), "-d", str(test.prompt_tokens)]
        else:
            sizes = ["-p", str(test.prompt_tokens), "-n", "0"]
        flags = ["-m", str(self._file), "-t", str(self._threads), "-ngl", "0", "-fa", "0,1", "-r", "1", "-o", "json"]
        return bench_figures(test, json.loads(self._output([str(self._program), *flags, *sizes])))

    def _by_batched_bench(self, test: SpeedTest) -> list[dict[str, float]]:
        program = self._program.with_name(self._program.name.replace(_BENCH, _BATCHED))
        if not program.exists():
            return []
        counts = {"-npp": test.prompt_tokens, "-ntg": test.output_tokens, "-npl": test.batch_size}
        counts |= {"-c": test.batch_size * test.sequence_tokens, "-t": self._threads, "-ngl": 0}
        flags = [word for flag, count in counts.items() for word in (flag, str(count))]
        command = [str(program), "-m", str(self._file), *flags, "--output-format", "jsonl"]
        lines = [line for line in self._output(command).splitlines() if line.startswith("{")]
        return [batched_bench_figures(json.loads(line)) for line in lines]

    def _output(self, command: Sequence[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise self._failed(done.returncode, done.stderr)
        return done.stdout

    def _by_driver(self, test: SpeedTest, flash_attention: int) -> dict[str, float]:
        if flash_attention not in self._drivers:
            self._drivers[flash_attention] = self._start(flash_attention)
        process, errors = self._drivers[flash_attention]
        assert process.stdin is not None
        assert process.stdout is not None
        request = [test.batch_size, test.prompt_tokens, test.output_tokens, self._vocab_size, self._number]
        with suppress(OSError):  # the process has ended, so the response is empty
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            errors.seek(0)  # only now, because the process shares the file position
            raise self._failed(code, errors.read())
        figures: dict[str, float] = json.loads(line)
        return figures

    def _start(self, flash_attention: int) -> tuple[subprocess.Popen[str], IO[str]]:
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - the stack closes it
        self._open.enter_context(errors)
        arguments = [self._file, self._threads, flash_attention, *self._largest]
        process = subprocess.Popen(
            [str(self._program), str(_DRIVER), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        self._open.callback(_end, process)
        return process, errors

    def _failed(self, code: int, errors: str) -> ResourceError:
        lines = [line.strip() for line in errors[-_ERROR_CHARACTERS:].splitlines() if line.strip()]
        reason = visible(lines[-1]) if lines else "no error message"
        return ResourceError(
            f"llama.cpp ended with exit code {code} on {self._file.name}: {reason}",
            fix="Check that this version of llama.cpp supports the file, or omit --gguf.",
        )


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(OSError):  # a process that ended early did not read its input
            pipe.close()
    process.wait()


def bench_figures(test: SpeedTest, results: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the figures in the JSON output of llama-bench, one dictionary per result.

    Args:
        test: The test.
        results: Results of llama-bench, one for each setting of flash attention.
    """
    speeds = [float(each["avg_ts"]) for each in results]
    if test.output_tokens:
        return [{"decode": speed} for speed in speeds]
    return [{"prefill": speed, "first_token": test.prompt_tokens / speed} for speed in speeds]


def batched_bench_figures(result: dict[str, Any]) -> dict[str, float]:
    """Return the figures in a line of the JSON output of llama-batched-bench."""
    outputs = result["pl"] * result["tg"]
    return {"decode": float(result["speed_tg"]), "with_prefill": outputs / float(result["t"])}
