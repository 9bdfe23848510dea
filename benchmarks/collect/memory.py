"""`python -m benchmarks.collect.memory`: peak memory of `groundup collect` on pages, and on twenty times as many.

The pages are those of the directory that PAGES names, in WARC files. Twenty times as many are twenty versions of each,
with other words in a third of the places, so that no copy is dropped as a near-duplicate of another. Memory is the sum
over the processes of a run, looked at every 50 ms; pages that they share are counted in each.
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

TIMES = 20
WORKERS = 2
_TEXT = re.compile(rb">[^<]+<")
_WORD = re.compile(rb"[A-Za-z]{3,}")


def main() -> None:
    """Collect once and twenty times as much; print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--work", help="directory for the files; default: a temporary one")
    options = parser.parse_args()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-memory-"))
    root = pages_root()
    pages = sample(root, options.pages)
    found: dict[str, float] = {"pages": len(pages)}
    for name, versions in (("1x", 1), (f"{TIMES}x", TIMES)):
        varied = work / f"pages-{name}"
        files = versions_of(root, pages, varied, versions)
        write_warcs(varied, files, work / f"warc-{name}", versions)
        found[f"bytes_{name}"] = sum(file.stat().st_size for file in files)
        found[f"rss_{name}"], found[f"seconds_{name}"] = _peak(work / f"warc-{name}", work / f"corpus-{name}")
        print(
            f"{name}: {found[f'bytes_{name}'] / 1e6:,.1f} MB of HTML, peak {found[f'rss_{name}'] / 1e6:,.0f} MB",
            flush=True,
        )
    print(json.dumps(found))


def versions_of(root: Path, pages: list[Path], out: Path, versions: int) -> list[Path]:
    """So many versions of each page, in a directory of their own."""
    return [_version(root, page, out, version) for version in range(versions) for page in pages]


def collect_command(source: Path, out: Path) -> list[str]:
    """`groundup collect` of a folder of web archives, with the filters of FineWeb."""
    filters = '["gopher_repetition", "gopher_quality", "c4", "fineweb"]'
    command = [sys.executable, "-m", "groundup", "collect", "--folder", str(source), "--out", str(out)]
    return [*command, "--workers", str(WORKERS), "--quiet", "--set", f"filters={filters}", "--set", "min_bytes=0"]


def _version(root: Path, page: Path, out: Path, version: int) -> Path:
    """The page with every third word of its text marked by the number of the version."""
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
    """Peak bytes and seconds of one run."""
    began, peak = time.monotonic(), 0
    run = subprocess.Popen(collect_command(source, out))
    while run.poll() is None:
        peak = max(peak, sum(map(_resident, _family(run.pid))))
        time.sleep(0.05)
    if run.returncode:
        raise SystemExit(f"groundup collect failed with {run.returncode}")
    return peak, round(time.monotonic() - began, 1)


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        try:
            children = Path(f"/proc/{each}/task/{each}/children").read_text()
        except OSError:
            continue
        found += map(int, children.split())
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
