"""`python -m benchmarks.collect.crash_recovery`: compare a run that was killed ten times with an uninterrupted run.

The input is several variants of each page in the directory PAGES (see memory.py), so that a run takes minutes. The
second run is killed with SIGKILL at ten random times and is restarted each time. The worker processes are not killed.
Both runs must write identical files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.collect.memory import collect_command, page_variants
from benchmarks.collect.pages import pages_root, sample, write_warcs

FILES = 8


def main() -> None:
    """Run `groundup collect` with and without interruptions, compare the files, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-crash-recovery-"))
    root = pages_root()
    pages = page_variants(root, sample(root, options.pages), work / "pages", options.versions)
    write_warcs(work / "pages", pages, work / "warc", FILES)
    started = time.monotonic()
    if subprocess.run(collect_command(work / "warc", work / "undisturbed"), check=False).returncode:
        raise SystemExit("the undisturbed run failed")
    seconds = time.monotonic() - started
    print(f"undisturbed: {len(pages)} pages in {seconds:.0f} s", flush=True)
    rng = random.Random(options.seed)
    kill_times = sorted(rng.uniform(0, seconds) for _ in range(options.kills))
    for previous, kill_time in pairwise([0.0, *kill_times]):
        run = subprocess.Popen(collect_command(work / "warc", work / "killed"))
        time.sleep(kill_time - previous)
        if run.poll() is not None:
            raise SystemExit(f"the run ended before it could be killed after {kill_time:.1f} s")
        run.send_signal(signal.SIGKILL)
        run.wait()
        print(f"killed after {kill_time:.1f} s", flush=True)
    if subprocess.run(collect_command(work / "warc", work / "killed"), check=False).returncode:
        raise SystemExit("the resumed run failed")
    undisturbed, killed = _digests(work / "undisturbed"), _digests(work / "killed")
    differing = sorted(name for name in undisturbed.keys() | killed.keys() if undisturbed.get(name) != killed.get(name))
    print(
        json.dumps(
            {
                "seconds": round(seconds),
                "killed_at": [round(kill_time, 1) for kill_time in kill_times],
                "files": len(undisturbed),
                "differing": differing,
            }
        )
    )


def _digests(corpus: Path) -> dict[str, str]:
    """Return the digests of all files of a corpus, except `artifact.json`, which contains the time of the run."""
    files = (path for path in corpus.rglob("*") if path.is_file() and path.name != "artifact.json")
    return {path.relative_to(corpus).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
