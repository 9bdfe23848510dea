"""The pool survives killed workers: no task is lost or repeated, and nothing hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from failing_tasks import Work

from groundup.core.errors import DataError, ResourceError
from groundup.corpus.executor import ProcessPool


def _run(tasks: list[Work], workers: int) -> Counter[str]:
    told: Counter[str] = Counter()
    with ProcessPool(workers) as pool:
        pool(tasks, lambda task: told.update([task.name]))
    return told


@pytest.mark.parametrize("workers", [1, 2])
def test_all_tasks_run_once(tmp_path: Path, workers: int) -> None:
    tasks = [Work(tmp_path, f"w{n}") for n in range(5)]
    tasks[2].run()  # in an earlier attempt
    told = _run(tasks, workers)
    assert told == Counter({"w0": 1, "w1": 1, "w3": 1, "w4": 1})
    assert all(task.done() for task in tasks)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """multiprocessing.Pool waits forever for the result of a killed worker."""
    tasks = [Work(tmp_path, f"w{n}", "killed once" if n == 1 else "") for n in range(6)]
    told = _run(tasks, 2)
    assert told == Counter(task.name for task in tasks)
    assert all(task.done() for task in tasks)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_the_pool_works_after_a_worker_was_killed(tmp_path: Path) -> None:
    """The pool is used for all steps, so later steps need workers, too."""
    with ProcessPool(2) as pool:
        for step in range(3):
            failure = "killed once" if step == 1 else ""
            tasks = [Work(tmp_path, f"{step}-{n}", failure if n == 0 else "") for n in range(4)]
            pool(tasks, lambda _: None)
            assert all(task.done() for task in tasks)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_task_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    tasks = [Work(tmp_path, "fine"), Work(tmp_path, "poison", "always killed"), Work(tmp_path, "late")]
    with pytest.raises(ResourceError, match="poison"):
        _run(tasks, 2)


def test_a_groundup_error_is_passed_unchanged(tmp_path: Path) -> None:
    """Exceptions with keyword arguments do not pickle, so the pool would fail with a misleading error."""
    with pytest.raises(DataError) as caught:
        _run([Work(tmp_path, "a", "user error"), Work(tmp_path, "b")], 2)
    assert (caught.value.value, caught.value.fix) == ("notes.txt", "Give text.")


def test_ctrl_c_does_not_wait_for_the_workers(tmp_path: Path) -> None:
    """A large file takes minutes, during which the terminal did not react to Ctrl-C."""
    tasks = [Work(tmp_path, f"w{n}", "slow") for n in range(3)]

    def press_when_they_work() -> None:
        while not (tmp_path / "w0.marker").exists():
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT) if os.name == "nt" else os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_when_they_work, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        _run(tasks, 2)
    assert time.time() - (tmp_path / "w0.marker").stat().st_mtime < 10
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


def test_an_error_does_not_wait_for_other_tasks(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(DataError):
        _run([Work(tmp_path, "slow", "slow"), Work(tmp_path, "bad", "user error")], 2)
    assert time.monotonic() - began < 30


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_exit_when_the_parent_is_killed(tmp_path: Path) -> None:
    """Otherwise, after kill -9, old workers would write concurrently with the resumed run."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from groundup.corpus.executor import ProcessPool\n"
        "@dataclass(frozen=True)\n"
        "class Sleep:\n"
        "    path: Path\n"
        "    label: str = 'sleep'\n"
        "    def done(self): return False\n"
        "    def run(self):\n"
        "        self.path.write_text(str(os.getpid()))\n"
        "        time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    ProcessPool(2)([Sleep(Path(p)) for p in sys.argv[1:]], print)\n"
    )
    notes = [tmp_path / "one", tmp_path / "two"]
    parent = subprocess.Popen([sys.executable, str(script), *map(str, notes)])
    try:
        deadline = time.monotonic() + 60
        while not all(note.exists() and note.read_text() for note in notes) and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [int(note.read_text()) for note in notes]
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
