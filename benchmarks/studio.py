"""`python -m benchmarks.studio --tokens DIR`: measure the latency of the Studio's page, and how much it slows training.

The benchmark trains a model on token shards while the Studio's server is running. The run is divided into time windows.
In every second window, a browser shows the Studio's training charts and switches between its tabs. There are three
targets. The first useful paint (pipeline, tabs and model name) takes at most 2 s. The page shows the result of a click
within 300 ms. Training steps are at most 3 % slower while the page is open.

The speed of a machine drifts, so each window with an open page is compared with the windows before and after it. The
interval is from a bootstrap over these comparisons. On Linux, the result includes the fraction of CPU time that the
server uses, and the fraction that all processes except the server and training use. Most of the latter is the browser.
The last line of the output is a JSON object.

The benchmark requires `pip install playwright` and Chromium (`--browser PATH`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from groundup.studio.workspace import newest_step

TABS = ("chat", "apps", "inside", "train", "data", "report")
# Returns the milliseconds from the click until the tab has been drawn. The second animation frame starts after this.
CLICK = """async name => {
  const began = performance.now();
  document.querySelector(`#tabs a[data-view='${name}']`).click();
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""


def main() -> None:
    """Train a model, measure the page and the training steps, and print the results."""
    options = _options()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-studio-"))
    runs = work / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    groundup = [sys.executable, "-m", "groundup"]
    base = runs / "run" / "base"
    command = [*groundup, "pretrain", str(options.tokens), "--out", str(base), "--tokens", options.train_tokens]
    changes = [part for change in options.set for part in ("--set", change)]
    training = subprocess.Popen([*command, *changes, "--quiet"])
    studio = subprocess.Popen(
        [*groundup, "studio", str(runs), "--port", str(options.port), "--quiet"], stdout=subprocess.DEVNULL
    )
    try:
        metrics = base / "metrics.jsonl"
        # The page shows the name of a model only after the first checkpoint, so wait for the checkpoint.
        _wait(lambda: metrics.is_file() and newest_step(base) is not None, training)
        result = _measure(options, f"http://127.0.0.1:{options.port}/", metrics, training.pid, studio.pid)
    finally:
        for process in (training, studio):
            process.terminate()
        for process in (training, studio):
            process.wait()
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="token shards, the output of `groundup tokenize`")
    parser.add_argument(
        "--train-tokens", default="12_000_000", help="tokens of the training plan; more than the windows need"
    )
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--port", type=int, default=8901)
    parser.add_argument("--window", type=float, default=20, help="seconds per window")
    parser.add_argument(
        "--windows", type=int, default=5, help="number of windows with the page; there is one more without"
    )
    parser.add_argument("--pace", type=float, default=5, help="seconds between two tab switches")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the training run")
    parser.add_argument("--work", help="directory for the run [a temporary directory]")
    return parser.parse_args()


def _measure(options: argparse.Namespace, url: str, metrics: Path, training: int, studio: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    paints: list[float] = []
    clicks: list[float] = []
    windows: list[list[float]] = []  # step times; the page is closed, open, closed, ..., closed
    shares: dict[str, list[dict[str, float]]] = {"closed": [], "open": []}
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=options.browser) as browser:
        page = browser.new_page()
        for turn in range(2 * options.windows + 1):
            name = ("closed", "open")[turn % 2]
            page.goto("about:blank")
            if name == "open":  # The window excludes the loading of the page, because users load the page only once.
                requested = time.monotonic()
                page.goto(url, wait_until="commit")
                for selector in ("#tabs a", "#pipeline a", "#model:enabled"):
                    page.locator(selector).first.wait_for()
                paints.append(time.monotonic() - requested)
            before = metrics.read_text().count("\n")
            began, busy = time.monotonic(), _cpu_seconds(training, studio)
            while (remaining := began + options.window - time.monotonic()) > 0:
                if name == "open":
                    clicks += [page.evaluate(CLICK, tab) for tab in (TABS[len(clicks) // 2 % len(TABS)], "train")]
                time.sleep(min(options.pace, remaining))
            cores = (time.monotonic() - began) * (os.cpu_count() or 1)
            now = _cpu_seconds(training, studio)
            shares[name].append({process: (now[process] - busy[process]) / cores for process in now})
            lines = metrics.read_text().splitlines()[before + 1 :]  # the first step began before the window
            windows.append([json.loads(line)["seconds"] for line in lines])
            print(f"window {turn + 1}, {name}: {len(lines)} steps", flush=True)
    ranked = sorted(clicks)
    return {
        "first_useful_paint_s": [round(paint, 3) for paint in paints],
        "click_ms": {"median": statistics.median(ranked), "p95": ranked[int(0.95 * len(ranked))], "max": ranked[-1]},
        "clicks": len(clicks),
        "slowdown": _slowdown(windows),
        "steps": {name: sum(map(len, windows[at::2])) for at, name in enumerate(("closed", "open"))},
        "share_of_cores": {
            name: {process: statistics.mean(share[process] for share in each) for process in each[0]}
            for name, each in shares.items()
        },
    }


def _slowdown(windows: list[list[float]]) -> dict[str, Any]:
    """Return the relative increase of the mean step time while the page is open, with a 95 % interval."""
    if not all(windows):
        raise SystemExit("a window without a complete step; increase --window or --train-tokens")
    means = [statistics.mean(each) for each in windows]
    slowdowns = [2 * means[at] / (means[at - 1] + means[at + 1]) - 1 for at in range(1, len(means) - 1, 2)]
    random = Random(0)
    resampled = sorted(statistics.mean(random.choices(slowdowns, k=len(slowdowns))) for _ in range(2000))
    return {
        "mean": statistics.mean(slowdowns),
        "ci95": [resampled[50], resampled[1949]],
        "median": statistics.median(slowdowns),
        "windows": [round(each, 4) for each in slowdowns],
    }


def _cpu_seconds(training: int, studio: int) -> dict[str, float]:
    """Return the CPU seconds of the server, and of all processes except the server and training.

    The result is empty if the system is not Linux.
    """
    tick = os.sysconf("SC_CLK_TCK")
    try:
        user, nice, system = (int(each) for each in Path("/proc/stat").read_text().split()[1:4])
        own = {
            process: sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
            for process in (training, studio)
        }
    except OSError:
        return {}
    total = user + nice + system
    return {"server": own[studio] / tick, "browser and others": (total - sum(own.values())) / tick}


def _wait(done: Any, process: subprocess.Popen[bytes]) -> None:
    while not done():
        if process.poll() is not None:
            raise SystemExit(f"training ended with exit code {process.returncode} before the measurement")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
