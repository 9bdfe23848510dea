"""`python -m benchmarks.collect.drill`: kill -9 at random moments, then once more: is it the same, byte for byte?

Pages are those that PAGES names, in several versions (see memory.py), so that a run takes minutes. One run goes
through. Another is killed and started again at ten moments drawn from the length of the first, by SIGKILL to the
process that was started, as the kernel or a person would; its workers are not waited for.
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

from benchmarks.collect.memory import collect_command, versions_of
from benchmarks.collect.pages import pages_root, sample, write_warcs

FILES = 8


def main() -> None:
    """Collect twice, kill the second one, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-drill-"))
    root = pages_root()
    pages = versions_of(root, sample(root, options.pages), work / "pages", options.versions)
    write_warcs(work / "pages", pages, work / "warc", FILES)
    began = time.monotonic()
    if subprocess.run(collect_command(work / "warc", work / "whole"), check=False).returncode:
        raise SystemExit("the undisturbed run failed")
    seconds = time.monotonic() - began
    print(f"undisturbed: {len(pages)} pages in {seconds:.0f} s", flush=True)
    rng = random.Random(options.seed)
    moments = sorted(rng.uniform(0, seconds) for _ in range(options.kills))
    for before, moment in pairwise([0.0, *moments]):
        run = subprocess.Popen(collect_command(work / "warc", work / "killed"))
        time.sleep(moment - before)
        if run.poll() is not None:
            raise SystemExit(f"the run was done before it was to be killed, after {moment:.1f} s")
        run.send_signal(signal.SIGKILL)
        run.wait()
        print(f"killed at {moment:.1f} s", flush=True)
    if subprocess.run(collect_command(work / "warc", work / "killed"), check=False).returncode:
        raise SystemExit("the run that was to go on failed")
    whole, killed = _digests(work / "whole"), _digests(work / "killed")
    differing = sorted(name for name in whole.keys() | killed.keys() if whole.get(name) != killed.get(name))
    print(
        json.dumps(
            {
                "seconds": round(seconds),
                "killed_at": [round(moment, 1) for moment in moments],
                "files": len(whole),
                "differing": differing,
            }
        )
    )


def _digests(corpus: Path) -> dict[str, str]:
    """All files but the record of the run, which tells when it was."""
    files = (path for path in corpus.rglob("*") if path.is_file() and path.name != "artifact.json")
    return {path.relative_to(corpus).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
