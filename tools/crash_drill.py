"""Kill a run at random moments, take it up again each time, and compare it with one that nobody killed.

    python tools/crash_drill.py RECIPE.toml WORK_DIRECTORY [--kills 10] [--seed 0] [-- --set key=value ...]

The first process that leaves a plan behind fixes the plan; from that moment the directory is copied, and the copy runs
to its end undisturbed. Equal means: every output of every stage has the same digest, and the same losses were logged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Drill, run the undisturbed copy, print what was equal; 0 when all was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds that a process lives at most")
    parser.add_argument("options", nargs="*", help="more options of groundup run")
    given = parser.parse_args()

    drilled, undisturbed = given.directory / "drilled", given.directory / "undisturbed"
    moments = random.Random(given.seed)
    kills = 0
    while kills < given.kills or not undisturbed.exists():
        process = start(given.recipe, drilled, given.options)
        lives = moments.uniform(1.0, given.longest)
        try:
            code = process.wait(lives)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"kill {kills} after {lives:.1f} s: {state(drilled)}", flush=True)
        else:
            print(f"ended by itself with exit code {code}: {state(drilled)}", flush=True)
            if code or not undisturbed.exists():
                print(f"error: nothing to compare; see {drilled / 'log.txt'}")
                return 1
            break
        if not undisturbed.exists() and list(drilled.glob("*/*/plan.json")):
            shutil.copytree(drilled, undisturbed)
    for runs in (drilled, undisturbed):
        started = time.monotonic()
        code = start(given.recipe, runs, given.options).wait()
        print(f"{runs.name}: to its end in {time.monotonic() - started:.0f} s, exit code {code}", flush=True)
    return compare(drilled, undisturbed)


def start(recipe: str, runs: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """`groundup run` as a process group of its own, so that a kill takes its workers along."""
    runs.mkdir(parents=True, exist_ok=True)
    log = (runs / "log.txt").open("ab")
    command = [sys.executable, "-m", "groundup", "run", recipe, "--runs", str(runs), *options]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def state(runs: Path) -> str:
    """What stands on the disk after a kill."""
    finished = sorted(path.parent.name for path in runs.glob("*/*/artifact.json"))
    saved = sorted(path.name for path in runs.glob("*/*/checkpoints/step-*"))
    return f"finished {', '.join(finished) or 'nothing'}; saved {', '.join(saved) or 'no step'}"


def compare(drilled: Path, undisturbed: Path) -> int:
    """Print, for each stage, whether its outputs are equal; count what is not."""
    unequal = 0
    for path in sorted(drilled.glob("*/*/artifact.json")):
        name = path.relative_to(drilled)
        ours, theirs = (json.loads((runs / name).read_text())["outputs"] for runs in (drilled, undisturbed))
        for output in sorted(ours.keys() | theirs.keys()):
            same = ours.get(output) == theirs.get(output)
            unequal += not same
            print(f"{'equal  ' if same else 'UNEQUAL'}  {name.parent}/{output}")
    for path in sorted(drilled.glob("*/*/metrics.jsonl")):
        name = path.relative_to(drilled)
        ours, theirs = losses(path), losses(undisturbed / name)
        same = ours == theirs
        unequal += not same
        print(f"{'equal  ' if same else 'UNEQUAL'}  {name}: {len(ours)} steps, last {ours[-1]}")
    return min(unequal, 1)


def losses(path: Path) -> list[dict[str, Any]]:
    """What was logged of each step, without its wall time."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
