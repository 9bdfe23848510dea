"""Starting contenders, each in a fresh process with its own cache of compiled kernels, and the product beside them."""

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
# What would change the speed of a process without being said on the command line.
_UNWANTED = re.compile(r"MALLOC_|GLIBC_TUNABLES|LD_PRELOAD|G?OMP_|KMP_|MKL_|TORCH|NANOCHAT_")
_CPU_PRODUCT, _GPU_PRODUCT = 2048, 8192
_PRODUCTS = 15


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where the processes run, and with what.

    Attributes:
        directory: logs, caches, models; kept when it was named on the command line.
        threads: CPU threads of every process; None leaves each program's choice.
        patience: seconds after which a process is taken to hang.
    """

    directory: Path
    threads: int | None
    patience: float = 3600.0

    def environment(self, cache: str, added: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's environment without what tunes speed, with a cache of kernels of that name."""
        kept = {key: value for key, value in os.environ.items() if not _UNWANTED.match(key)}
        kept["TORCHINDUCTOR_CACHE_DIR"] = str(self.directory / "kernels" / cache)
        kept["NANOCHAT_BASE_DIR"] = str(self.directory / "nanochat-base")
        kept["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        if self.threads is not None:
            kept["OMP_NUM_THREADS"] = str(self.threads)
        return kept | dict(added or {})

    def log(self, name: str) -> Path:
        """Where what a process prints goes."""
        path = self.directory / "logs" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def work(self, name: str, request: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
        """Run `benchmarks.pretrain.worker`.

        Raises:
            ContenderError: it failed; says how, and where its output is.
        """
        asked, answered = self.log(name).with_suffix(".job.json"), self.log(name).with_suffix(".result.json")
        answered.unlink(missing_ok=True)
        asked.write_text(json.dumps(request))
        command = [sys.executable, "-m", "benchmarks.pretrain.worker", str(asked), str(answered)]
        with self.log(name).open("w") as output:
            try:
                done = subprocess.run(
                    command,
                    cwd=self.directory,
                    env=dict(environment),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=self.patience,
                )
            except subprocess.TimeoutExpired:
                raise ContenderError(f"took more than {self.patience:,.0f} s; {self.log(name)}") from None
        if done.returncode or not answered.is_file():
            lines = self.log(name).read_text(errors="replace").strip().splitlines() or ["no output"]
            raise ContenderError(f"exit {done.returncode}: {lines[-1][:200]}; {self.log(name)}")
        result: dict[str, Any] = json.loads(answered.read_text())
        return result


class ContenderError(Exception):
    """A contender's process failed."""


def product_flops(device: str) -> float:
    """FLOP/s of one square bf16 product now, in this process: the median of a few. MFU is a share of it."""
    size = _GPU_PRODUCT if device == "cuda" else _CPU_PRODUCT
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    times = []
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times[3:])
