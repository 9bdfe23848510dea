"""Kill a run at random times, resume the run each time, and compare its result with an uninterrupted run.

    python tools/crash_recovery.py RECIPE.toml WORK_DIRECTORY [--kills 10] [--seed 0] [-- --set key=value ...]

When the run has written its first plan, the tool copies the run directory and continues the copy without interruption.
So both runs have the same plan. The runs are equal if all files of all stages have the same content, including the
logged losses.
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
    """Run the test and print which files are equal. Return 0 if all files are equal, otherwise 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, default=60.0, help="maximum seconds before a kill [60]")
    parser.add_argument("options", nargs="*", help="additional options of groundup run")
    args = parser.parse_args()

    killed, uninterrupted = args.directory / "killed", args.directory / "uninterrupted"
    generator = random.Random(args.seed)
    kills = 0
    while kills < args.kills or not uninterrupted.exists():
        process = start(args.recipe, killed, args.options)
        # Each later process gets more time, because even on a slow machine a process must have time to write the plan.
        seconds = generator.uniform(1.0, args.max_seconds * max(1.0, kills / max(1, args.kills)))
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"kill {kills} after {seconds:.1f} s: {state(killed)}", flush=True)
        else:
            print(f"finished with exit code {code}: {state(killed)}", flush=True)
            if code or not uninterrupted.exists():
                print(f"error: nothing to compare; see {killed / 'log.txt'}")
                return 1
            break
        if not uninterrupted.exists() and list(killed.glob("*/*/plan.json")):
            shutil.copytree(killed, uninterrupted)
    for runs in (killed, uninterrupted):
        started = time.monotonic()
        code = start(args.recipe, runs, args.options).wait()
        print(f"{runs.name}: finished in {time.monotonic() - started:.0f} s, exit code {code}", flush=True)
    return compare(killed, uninterrupted)


def start(recipe: str, runs: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start `groundup run` in a new process group, so that its worker processes can be killed with it."""
    runs.mkdir(parents=True, exist_ok=True)
    log = (runs / "log.txt").open("ab")
    command = [sys.executable, "-m", "groundup", "run", recipe, "--runs", str(runs), *options]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def state(runs: Path) -> str:
    """Return a text that lists the finished stages and the saved checkpoints."""
    finished = sorted(path.parent.name for path in runs.glob("*/*/artifact.json"))
    saved = sorted(path.name for path in runs.glob("*/*/checkpoints/step-*"))
    return f"finished stages: {', '.join(finished) or 'none'}; checkpoints: {', '.join(saved) or 'none'}"


def compare(killed: Path, uninterrupted: Path) -> int:
    """Print for each output file and each log of losses whether it is equal. Return 1 if any file differs."""
    unequal = 0
    for artifact in sorted(killed.glob("*/*/artifact.json")):
        directory = artifact.parent.relative_to(killed)
        left, right = (json.loads((runs / directory / artifact.name).read_text()) for runs in (killed, uninterrupted))
        outputs = sorted(left["outputs"].keys() | right["outputs"].keys())
        for name in [*outputs, *(["metrics.jsonl"] if (artifact.parent / "metrics.jsonl").exists() else [])]:
            if name.endswith((".md", ".html")):
                continue  # These pages contain wall times. Their other content is also in JSON files.
            same = content(killed / directory / name) == content(uninterrupted / directory / name)
            unequal += not same
            print(f"{'equal  ' if same else 'UNEQUAL'}  {directory / name}")
    return min(unequal, 1)


def content(path: Path) -> Any:
    """Return the content of a file. Wall times and the path of the run directory are removed."""
    if not path.exists():
        return None
    if path.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return without_times(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def without_times(value: Any) -> Any:
    """Remove the values that may differ between two equal runs."""
    if isinstance(value, dict):
        measured = {"seconds", "waited", "mfu", "training_seconds", "finished_at", "matmul_flops"}
        differing = measured | {"next"}  # "next" has commands that contain the path of the run
        return {key: without_times(each) for key, each in value.items() if key not in differing}
    return [without_times(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
