"""`python -m benchmarks.studio --tokens DIR`: the Studio's page while a model learns; one JSON object last.

A model is trained on token shards (of any run) with the Studio beside it. In windows of the same run, in turns, a
browser shows an empty page, or the Studio's on its curves while its tabs are walked through. Bars: first useful paint
(road, tabs and the model's name are there) in 2 s; from a click to the frame that shows it, 300 ms; the steps of the
windows with the page are at most 3 % slower than those without.

A machine's speed drifts, so each window with the page is compared with the windows before and after it; the interval
is a bootstrap of those ratios. On Linux it is also told what share of all cores the server took in both kinds of
windows, and what share everything else but the training did, which is the browser. Needs `pip install playwright` and
a Chromium (`--browser PATH`).
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

from groundup.studio.home import newest_step

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
    command = [*groundup, "pretrain", str(options.tokens), "--out", str(base), "--tokens", options.train_tokens]
    changes = [part for change in options.set for part in ("--set", change)]
    training = subprocess.Popen([*command, *changes, "--quiet"])
    studio = subprocess.Popen(
        [*groundup, "studio", str(runs), "--port", str(options.port), "--quiet"], stdout=subprocess.DEVNULL
    )
    try:
        metrics = base / "metrics.jsonl"
        # Until its first checkpoint there is no model whose name could be painted.
        _wait(lambda: metrics.is_file() and newest_step(base) is not None, training)
        figures = _looked_at(options, f"http://127.0.0.1:{options.port}/", metrics, training.pid, studio.pid)
    finally:
        for process in (training, studio):
            process.terminate()
        for process in (training, studio):
            process.wait()
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="token shards, as `groundup tokenize` leaves them")
    parser.add_argument("--train-tokens", default="12_000_000", help="of its plan; more than it comes to")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--port", type=int, default=8901)
    parser.add_argument("--window", type=float, default=20, help="seconds of each window")
    parser.add_argument("--windows", type=int, default=5, help="with the page; one more without")
    parser.add_argument(
        "--pace", type=float, default=5, help="seconds that somebody looks at the curves between two tabs"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the training")
    parser.add_argument("--work", help="directory for the run; default: a temporary one")
    return parser.parse_args()


def _looked_at(options: argparse.Namespace, url: str, metrics: Path, training: int, studio: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    paints: list[float] = []
    clicks: list[float] = []
    windows: list[list[float]] = []  # seconds of the steps of each; closed and open in turns, closed at both ends
    shares: dict[str, list[dict[str, float]]] = {"closed": [], "open": []}
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=options.browser) as browser:
        page = browser.new_page()
        for turn in range(2 * options.windows + 1):
            name = ("closed", "open")[turn % 2]
            page.goto("about:blank")
            if name == "open":  # before the window: it is opened once, and then looked at for hours
                asked = time.monotonic()
                page.goto(url, wait_until="commit")
                for there in ("#tabs a", "#road a", "#model:enabled"):
                    page.locator(there).first.wait_for()
                paints.append(time.monotonic() - asked)
            before = metrics.read_text().count("\n")
            began, busy = time.monotonic(), _busy(training, studio)
            while (left := began + options.window - time.monotonic()) > 0:
                if name == "open":
                    clicks += [page.evaluate(CLICK, tab) for tab in (TABS[len(clicks) // 2 % len(TABS)], "train")]
                time.sleep(min(options.pace, left))
            cores = (time.monotonic() - began) * (os.cpu_count() or 1)
            shares[name].append({who: (at - busy[who]) / cores for who, at in _busy(training, studio).items()})
            lines = metrics.read_text().splitlines()[before + 1 :]  # the first was begun before the window
            windows.append([json.loads(line)["seconds"] for line in lines])
            print(f"window {turn + 1}, {name}: {len(lines)} steps", flush=True)
    ranked = sorted(clicks)
    return {
        "first_useful_paint_s": [round(paint, 3) for paint in paints],
        "click_ms": {"median": statistics.median(ranked), "p95": ranked[int(0.95 * len(ranked))], "most": ranked[-1]},
        "clicks": len(clicks),
        "slowdown": _slowdown(windows),
        "steps": {name: sum(map(len, windows[at::2])) for at, name in enumerate(("closed", "open"))},
        "share_of_cores": {
            name: {who: statistics.mean(share[who] for share in each) for who in each[0]}
            for name, each in shares.items()
        },
    }


def _slowdown(windows: list[list[float]]) -> dict[str, Any]:
    """How much slower the mean step of a window with the page is than that of its neighbours: the mean, and 95 %."""
    if not all(windows):
        raise SystemExit("a window without a whole step: give longer ones (--window), or a longer run (--train-tokens)")
    means = [statistics.mean(each) for each in windows]
    found = [2 * means[at] / (means[at - 1] + means[at + 1]) - 1 for at in range(1, len(means) - 1, 2)]
    random = Random(0)
    drawn = sorted(statistics.mean(random.choices(found, k=len(found))) for _ in range(2000))
    return {
        "mean": statistics.mean(found),
        "ci95": [drawn[50], drawn[1949]],
        "median": statistics.median(found),
        "windows": [round(each, 4) for each in found],
    }


def _busy(training: int, studio: int) -> dict[str, float]:
    """Seconds of all cores so far, of the server and of all but it and the training; nothing where it is not told."""
    tick = os.sysconf("SC_CLK_TCK")
    try:
        user, nice, system = (int(each) for each in Path("/proc/stat").read_text().split()[1:4])
        own = {
            process: sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
            for process in (training, studio)
        }
    except OSError:
        return {}
    everything = user + nice + system
    return {"server": own[studio] / tick, "browser and others": (everything - sum(own.values())) / tick}


def _wait(done: Any, process: subprocess.Popen[bytes]) -> None:
    while not done():
        if process.poll() is not None:
            raise SystemExit(f"the training ended with {process.returncode} before it could be looked at")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
