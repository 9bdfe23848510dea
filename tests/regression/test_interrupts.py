"""Ctrl-C during imports ends the program with one line.

In an earlier release, it printed a traceback or was lost. The tests failed if the parent process ignored SIGINT.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="requires POSIX signals")

# This code runs the command line, and sends SIGINT to its own process when a particular module is imported.
_PROBE = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
wanted, sys.argv = sys.argv[1], ["groundup", *sys.argv[2:]]
sys.meta_path.insert(0, Finder())
from groundup.__main__ import start
start()
"""


def interrupted_at(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROBE, module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", ["groundup.cli", "click", "click.core", "groundup.core.config", "pydantic"])
def test_an_interrupt_during_imports_is_one_line_and_130(module: str) -> None:
    done = interrupted_at(module, "config", "pretrain")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted. Run the same command again to continue.\n"


def test_an_interrupt_that_torch_would_swallow_ends_the_command(tmp_path: Path) -> None:
    """torch imports numpy from C++, ignores an exception during this import, and continues without numpy."""
    done = interrupted_at("numpy.linalg", "generate", str(tmp_path), "Once")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted. Run the same command again to continue.\n"


def test_an_interrupt_that_a_library_turns_into_another_error_is_still_one() -> None:
    """The Rust code of safetensors replaces KeyboardInterrupt by TypeError."""
    code = """
import os, signal
from groundup import cli
from groundup.core import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()

def read(*arguments, **options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        pass
    raise TypeError("no such shape")

cli.cli.main = read
cli.main(["generate"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "Interrupted. Run the same command again to continue.\n")


def test_the_tests_of_interrupts_pass_where_the_parent_ignores_them() -> None:
    """The parent process ignores SIGINT, as in a script that runs `make test &`."""
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "ctrl_c"]
    done = subprocess.run(
        [*command, str(tests / "unit" / "cli" / "test_command_line.py")],
        cwd=tests.parent,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.returncode == 0, done.stdout


def test_a_job_that_was_started_with_interrupts_ignored_ignores_them() -> None:
    """`nohup` and `&` in a script start a process that ignores SIGINT."""
    code = """
import os, signal
from groundup.core import interrupts
interrupts.install()
os.kill(os.getpid(), signal.SIGINT)
print("still here")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (done.returncode, done.stdout) == (0, "still here\n")
