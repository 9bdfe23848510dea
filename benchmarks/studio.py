"""`python -m benchmarks.studio --tokens DIR`: the Studio's page while a model learns; one JSON object last.

A model is trained on token shards (of any run) with the Studio beside it. In windows of the same run, in turns, the
page is closed, or open on the curves while its tabs are walked through. Bars: first useful paint (road, tabs and the
model's name are there) in 2 s; from a click to the frame that shows it, 300 ms; the steps of the windows with the page
are at most 3 % slower than those without. Steps say little where neighbours are loud; so on Linux it is also told
what share of all cores everything but the training took in both kinds of windows: the difference is what the page and
its browser cost. Needs `pip install playwright` and a Chromium (`--browser PATH`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TABS = ("chat", "apps", "inside", "train", "data", "report")
# From the click to the frame after the one in which the tab was drawn.
CLICK = """async name => {
  const began = performance.now();
  document.querySelector(`#tabs a[data-view='${name}']`).click();
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""


def main() -> None:
    """Train, look, and print the figures."""
    options = _options()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-studio-"))
    runs = work / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    groundup = [sys.executable, "-m", "groundup"]
    base = runs / "evening" / "base"
    command = [*groundup, "pretrain", str(options.tokens), "--out", str(base), "--tokens", "500_000_000", "--quiet"]
    training = subprocess.Popen([*command, *(part for change in options.set for part in ("--set", change))])
    studio = subprocess.Popen(
        [*groundup, "studio", str(runs), "--port", str(options.port), "--quiet"], stdout=subprocess.DEVNULL
    )
    try:
        metrics = base / "metrics.jsonl"
        _wait(lambda: metrics.is_file() and metrics.read_text().count("\n") > 8, training)
        figures = _looked_at(options, f"http://127.0.0.1:{options.port}/", metrics, training.pid)
    finally:
        for process in (training, studio):
            process.send_signal(signal.SIGINT)
        for process in (training, studio):
            process.wait()
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="token shards, as `groundup tokenize` leaves them")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--port", type=int, default=8901)
    parser.add_argument("--window", type=float, default=20, help="seconds of each window")
    parser.add_argument("--windows", type=int, default=5, help="with the page, and as many without")
    parser.add_argument(
        "--pace", type=float, default=5, help="seconds that somebody looks at the curves between two tabs"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the training")
    parser.add_argument("--work", help="directory for the run; default: a temporary one")
    return parser.parse_args()


def _looked_at(options: argparse.Namespace, url: str, metrics: Path, training: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    paints: list[float] = []
    clicks: list[float] = []
    steps: dict[str, list[float]] = {"closed": [], "open": []}
    others: dict[str, list[float]] = {"closed": [], "open": []}
    with sync_playwright() as playwright:
        for turn in range(2 * options.windows):
            name = ("closed", "open")[turn % 2]
            browser = playwright.chromium.launch(executable_path=options.browser) if name == "open" else None
            if browser is not None:
                page = browser.new_page()
                began = time.monotonic()
                page.goto(url, wait_until="commit")
                for there in ("#tabs a", "#road a", "#model:enabled"):
                    page.locator(there).first.wait_for()
                paints.append(time.monotonic() - began)
            before = metrics.read_text().count("\n")
            began_at, busy = time.monotonic(), _busy_beside(training)
            ends = began_at + options.window
            while time.monotonic() < ends:
                if browser is not None:
                    clicks += [page.evaluate(CLICK, tab) for tab in (TABS[len(clicks) % len(TABS)], "train")]
                time.sleep(options.pace)
            if busy is not None:
                others[name].append((_busy_beside(training) - busy) / (time.monotonic() - began_at) / os.cpu_count())
            lines = metrics.read_text().splitlines()[before + 1 :]
            steps[name] += [json.loads(line)["seconds"] for line in lines]
            if browser is not None:
                browser.close()
            print(f"window {turn + 1}, {name}: {len(lines)} steps", flush=True)
    ranked = sorted(clicks)
    return {
        "first_useful_paint_s": [round(paint, 3) for paint in paints],
        "click_ms": {"median": statistics.median(ranked), "p95": ranked[int(0.95 * len(ranked))], "most": ranked[-1]},
        "clicks": len(clicks),
        "slowdown": statistics.median(steps["open"]) / statistics.median(steps["closed"]) - 1,
        "mean_slowdown": statistics.mean(steps["open"]) / statistics.mean(steps["closed"]) - 1,
        "steps": {name: len(each) for name, each in steps.items()},
        "share_of_cores_beside_training": {name: statistics.mean(each) for name, each in others.items() if each},
    }


def _busy_beside(process: int) -> float | None:
    """Seconds that the cores have been busy with anything else than a process; None where the system does not tell."""
    try:
        user, nice, system = (int(each) for each in Path("/proc/stat").read_text().split()[1:4])
        own = sum(int(each) for each in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13])
    except OSError:
        return None
    return (user + nice + system - own) / os.sysconf("SC_CLK_TCK")


def _wait(done: Any, process: subprocess.Popen[bytes]) -> None:
    while not done():
        if process.poll() is not None:
            raise SystemExit(f"the training ended with {process.returncode} before it could be looked at")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
