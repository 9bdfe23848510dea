"""`python -m benchmarks.collect.memory`: measure whether the peak memory of `groundup collect` grows with the input.

The small input is the pages in the directory PAGES, as WARC files. The large input has 20 variants of each page. A
third of the words of each variant differ, so that variants are not dropped as near-duplicates. Memory is the sum of the
resident set sizes of all processes of the run, sampled every 50 ms. Memory that several processes share is counted
several times.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.collect.pages import pages_root, sample, write_warcs

SCALE = 20
WORKERS = 2
_TEXT = re.compile(rb">[^<]+<")
_WORD = re.compile(rb"[A-Za-z]{3,}")


def main() -> None:
    """Measure the peak memory for both inputs and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--work", help="directory for the files [a temporary directory]")
    options = parser.parse_args()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-memory-"))
    root = pages_root()
    pages = sample(root, options.pages)
    result: dict[str, float] = {"pages": len(pages)}
    for name, versions in (("1x", 1), (f"{SCALE}x", SCALE)):
        varied = work / f"pages-{name}"
        files = page_variants(root, pages, varied, versions)
        write_warcs(varied, files, work / f"warc-{name}", versions)
        result[f"bytes_{name}"] = sum(file.stat().st_size for file in files)
        result[f"rss_{name}"], result[f"seconds_{name}"] = _peak(work / f"warc-{name}", work / f"corpus-{name}")
        print(
            f"{name}: {result[f'bytes_{name}'] / 1e6:,.1f} MB of HTML, peak {result[f'rss_{name}'] / 1e6:,.0f} MB",
            flush=True,
        )
    print(json.dumps(result))


def page_variants(root: Path, pages: list[Path], out: Path, versions: int) -> list[Path]:
    """Write `versions` variants of each page to `out`, and return the paths of the variants."""
    return [_version(root, page, out, version) for version in range(versions) for page in pages]


def collect_command(source: Path, out: Path) -> list[str]:
    """Return the `groundup collect` command that reads a directory of WARC files and applies FineWeb's filters."""
    filters = '["gopher_repetition", "gopher_quality", "c4", "fineweb"]'
    command = [sys.executable, "-m", "groundup", "collect", "--folder", str(source), "--out", str(out)]
    return [*command, "--workers", str(WORKERS), "--quiet", "--set", f"filters={filters}", "--set", "min_bytes=0"]


def _version(root: Path, page: Path, out: Path, version: int) -> Path:
    """Write a variant of a page. A letter that depends on the version is appended to every third word."""
    target = out / str(version) / page.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    seen = 0

    def word(match: re.Match[bytes]) -> bytes:
        nonlocal seen
        seen += 1
        return match[0] + b"qxzjkvwbfgmphdltcnrs"[version : version + 1] if version and seen % 3 == 0 else match[0]

    target.write_bytes(_TEXT.sub(lambda text: _WORD.sub(word, text[0]), page.read_bytes()))
    return target


def _peak(source: Path, out: Path) -> tuple[int, float]:
    """Run `groundup collect` once, and return its peak memory in bytes and its duration in seconds."""
    started, peak = time.monotonic(), 0
    run = subprocess.Popen(collect_command(source, out))
    while run.poll() is None:
        peak = max(peak, sum(map(_resident, _process_tree(run.pid))))
        time.sleep(0.05)
    if run.returncode:
        raise SystemExit(f"groundup collect failed with exit code {run.returncode}")
    return peak, round(time.monotonic() - started, 1)


def _process_tree(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    pids = [pid]
    for each in pids:
        try:
            children = Path(f"/proc/{each}/task/{each}/children").read_text()
        except OSError:
            continue
        pids += map(int, children.split())
    return pids


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
