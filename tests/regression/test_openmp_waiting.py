"""Idle OpenMP threads sleep soon.

In an earlier release, idle threads spun. If another process used the CPU, training steps took 10 to 15 times longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

from groundup.core.openmp import DEFAULTS

# This code prints the environment of the process at the time when torch, and with it the OpenMP library, is imported.
WATCHED = """
import json, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(json.dumps(dict(os.environ)), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
"""
COMMAND = ["groundup", "generate", "nothing-here", "a"]
STARTS = {
    "command": f"from groundup.cli import main; main({COMMAND[1:]})",
    "module": f"import runpy; sys.argv = {COMMAND}; runpy.run_module('groundup', run_name='__main__')",
    "library": "import groundup; import torch",
    "worker": "import groundup.inference.worker; import torch",
}


def environment_at_torch(code: str, changes: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", *DEFAULTS)}
    command = [sys.executable, "-c", WATCHED + code]
    done = subprocess.run(command, env=kept | changes, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("start", STARTS)
def test_waiting_is_set_before_torch_loads(start: str) -> None:
    found = environment_at_torch(STARTS[start], {})
    assert {name: found.get(name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("own", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"KMP_BLOCKTIME": "200"}])
def test_the_users_own_setting_stays(own: dict[str, str]) -> None:
    found = environment_at_torch(STARTS["library"], own)
    assert {name: found[name] for name in ("OMP_WAIT_POLICY", *DEFAULTS) if name in found} == own


SPINNING = """
import groundup, resource, time, torch
torch.set_num_threads(2)
a = torch.ones(1 << 20)
for _ in range(20):
    a.add_(1.0)
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(200):
    a.add_(1.0)
    time.sleep(0.004)
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="requires GNU OpenMP and two cores")
def test_idle_threads_sleep() -> None:
    """Measure the CPU time of 200 short parallel loops with pauses of 4 ms. Spinning threads take more CPU time."""
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", *DEFAULTS)}

    def seconds(changes: Mapping[str, str]) -> float:
        done = subprocess.run(
            [sys.executable, "-c", SPINNING],
            env=kept | changes,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return float(done.stdout)

    started = time.monotonic()
    ours, spinning = seconds({}), seconds({"GOMP_SPINCOUNT": "300000"})
    assert ours < 0.7 * spinning, f"{ours:.2f} s and {spinning:.2f} s, in {time.monotonic() - started:.0f} s"
