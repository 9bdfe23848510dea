"""Worker processes, and the measurement of the matmul throughput that MFU is relative to.

Each worker process has its own cache of compiled kernels.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
# Environment variables that affect speed.
_TUNING_VARIABLES = re.compile(r"MALLOC_|GLIBC_TUNABLES|LD_PRELOAD|G?OMP_|KMP_|MKL_|TORCH|NANOCHAT_")
_CPU_MATMUL_SIZE, _GPU_MATMUL_SIZE = 2048, 8192
_NUM_MATMULS = 15


@dataclass(frozen=True, slots=True)
class ProcessRunner:
    """Runs worker processes.

    Attributes:
        directory: Directory for logs, caches and models.
        threads: Number of CPU threads per process. If None, each program uses its default.
        timeout_seconds: Maximum duration of a process in seconds.
        source: Directory of the package groundup.
        cpu: CPU core on which the processes run. If None, the system chooses the cores.
    """

    directory: Path
    threads: int | None
    timeout_seconds: float = 3600.0
    source: Path = ROOT / "src"
    cpu: int | None = None

    @property
    def python(self) -> list[str]:
        """Command of the Python interpreter."""
        return [*([] if self.cpu is None else ["taskset", "--cpu-list", str(self.cpu)]), sys.executable]

    def environment(self, cache: str, added: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a process, without variables that affect speed.

        The process caches compiled kernels in a directory with the given name.
        """
        variables = {key: value for key, value in os.environ.items() if not _TUNING_VARIABLES.match(key)}
        variables["TORCHINDUCTOR_CACHE_DIR"] = str(self.directory / "kernels" / cache)
        variables["NANOCHAT_BASE_DIR"] = str(self.directory / "nanochat-base")
        variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(self.source)])
        if self.threads is not None:
            variables["OMP_NUM_THREADS"] = str(self.threads)
        return variables | dict(added or {})

    def log_path(self, name: str) -> Path:
        """Return the path of the log file to which a process writes its output."""
        path = self.directory / "logs" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def run_worker(self, name: str, request: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
        """Run `benchmarks.pretrain.worker` and return its result.

        Raises:
            ContenderError: The process failed. The message contains the path of the log file.
        """
        request_file, result_file = (
            self.log_path(name).with_suffix(".job.json"),
            self.log_path(name).with_suffix(".result.json"),
        )
        result_file.unlink(missing_ok=True)
        request_file.write_text(json.dumps(request))
        command = [*self.python, "-m", "benchmarks.pretrain.worker", str(request_file), str(result_file)]
        with self.log_path(name).open("w") as output:
            try:
                done = subprocess.run(
                    command,
                    cwd=self.directory,
                    env=dict(environment),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=self.timeout_seconds,
                )
            except subprocess.TimeoutExpired:
                raise ContenderError(f"took more than {self.timeout_seconds:,.0f} s; {self.log_path(name)}") from None
        if done.returncode or not result_file.is_file():
            lines = self.log_path(name).read_text(errors="replace").strip().splitlines() or ["no output"]
            raise ContenderError(f"exit {done.returncode}: {lines[-1][:200]}; {self.log_path(name)}")
        result: dict[str, Any] = json.loads(result_file.read_text())
        return result


class ContenderError(Exception):
    """The failure of a worker process."""


def matmul_flops(device: str) -> float:
    """Return the throughput of a square matmul in FLOP/s, which is the denominator of MFU.

    The result is the median of the faster dtype. CPUs without bf16 instructions are faster in fp32.
    """
    dtypes = (torch.bfloat16,) if device == "cuda" else (torch.bfloat16, torch.float32)
    return max(_median_flops(device, dtype) for dtype in dtypes)


def _median_flops(device: str, dtype: torch.dtype) -> float:
    size = _GPU_MATMUL_SIZE if device == "cuda" else _CPU_MATMUL_SIZE
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    times = []
    for _ in range(_NUM_MATMULS):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times[3:])
