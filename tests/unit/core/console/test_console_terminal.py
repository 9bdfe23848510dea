"""On a terminal, the stage list and the progress bar are drawn on stderr, and stdout contains only results."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pty = pytest.importorskip("pty", reason="requires POSIX pseudo-terminals")

WORK = """
import sys, time
from groundup.core.console import Console
console = Console()
with console.stages({"collect": "gather text", "pretrain": "train", "evaluate": "measure"}) as stages:
    stages.mark("collect", "skipped", seconds=41)
    stages.mark("pretrain", "running")
    with console.progress("training", 1000, "tokens", curve="loss") as progress:
        for step in range(10):
            time.sleep(0.1)
            progress.advance(50)
            progress.show(loss=f"{9 - step}.00", lr="0.02")
        console.sample("step 10", "it writes\\x1b[2J this")
        print("noise of a library", file=sys.stderr)
        time.sleep(0.3)
    stages.mark("pretrain", "done")
print("the result")
"""


def on_a_terminal(code: str, **environment: str) -> tuple[str, str]:
    """Run Python code with stderr on a pseudo-terminal, and return stderr and stdout."""
    ours, theirs = pty.openpty()
    inherited = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=inherited | {"TERM": "xterm-256color", "COLUMNS": "100", "PYTHONUTF8": "1"} | environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux raises OSError when the other end of the terminal is closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert process.stdout is not None
    result = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait() == 0
    return seen.decode(), result


def test_stages_bar_time_left_and_curve_are_drawn() -> None:
    shown, result = on_a_terminal(WORK)
    assert "\x1b[" in shown
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "✓ collect" in text  # done
    assert "0:41" in text
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] pretrain", text)  # running
    assert "○ evaluate" in text  # pending
    frame = text[: text.index("it writes")]
    assert re.search(r"training ━+.*\d+ %  \d:\d\d left  \d+(\.\d+)? tokens/s  \d+ of 1.00k tokens", frame)
    assert re.search(r"loss \d\.00 [▁▂▃▄▅▆▇█]+   lr 0\.02", frame)
    # The stage list stays on the screen as a summary.
    assert text.rstrip().splitlines()[-2].lstrip().startswith("✓ pretrain")
    assert "it writes�[2J this" in text
    assert "noise of a library" in text
    assert result == "the result\n"


@pytest.mark.parametrize("switch", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "true"}])
def test_environment_variables_disable_the_live_display(switch: dict[str, str]) -> None:
    shown, _ = on_a_terminal(WORK, **switch)
    assert "\x1b" not in shown
    assert "[2/3] pretrain: done" in shown
