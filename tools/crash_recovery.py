"""Kill a run at random moments, take it up again each time, and compare it with one that nobody killed.

    python tools/crash_recovery.py RECIPE.toml WORK_DIRECTORY [--kills 10] [--seed 0] [-- --set key=value ...]

The first process that leaves a plan behind fixes the plan; from that moment the directory is copied, and the copy runs
to its end undisturbed. Equal means: every file of every stage says the same, and the same losses were logged.
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
    """Print, for each file that a stage left and each log of losses, whether it is equal; 1 when any is not."""
    unequal = 0
    for artifact in sorted(drilled.glob("*/*/artifact.json")):
        directory = artifact.parent.relative_to(drilled)
        ours, theirs = (json.loads((runs / directory / artifact.name).read_text()) for runs in (drilled, undisturbed))
        outputs = sorted(ours["outputs"].keys() | theirs["outputs"].keys())
        for name in [*outputs, *(["metrics.jsonl"] if (artifact.parent / "metrics.jsonl").exists() else [])]:
            if name.endswith((".md", ".html")):
                continue  # pages that show wall times; what they show besides is in the JSON beside them
            same = content(drilled / directory / name) == content(undisturbed / directory / name)
            unequal += not same
            print(f"{'equal  ' if same else 'UNEQUAL'}  {directory / name}")
    return min(unequal, 1)


def content(path: Path) -> Any:
    """What a file says, wall times and the directory that it was made in left out."""
    if not path.exists():
        return None
    if path.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return without_times(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def without_times(value: Any) -> Any:
    """A JSON value without what may differ between two equal runs."""
    if isinstance(value, dict):
        measured = {"seconds", "waited", "mfu", "training_seconds", "finished_at", "product_flops"}
        differing = measured | {"next"}  # commands with the directory in them
        return {key: without_times(each) for key, each in value.items() if key not in differing}
    return [without_times(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
