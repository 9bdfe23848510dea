"""Local processes and Ray write the same corpus, byte for byte, even if a worker is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.core.files import file_digest

pytestmark = [pytest.mark.interop, pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")]


def _collect(folder: Path, out: Path, engine: str) -> subprocess.Popen[bytes]:
    """Work units are files of more than 8 MiB, enough for two workers."""
    command = [sys.executable, "-m", "groundup", "collect", "--folder", str(folder), "--out", str(out)]
    options = ["--engine", engine, "--workers", "2", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen([*command, *options], env=environment, start_new_session=True)


def _shards(out: Path) -> dict[str, str]:
    return {path.relative_to(out).as_posix(): file_digest(path) for path in out.rglob("*.parquet")}


def _workers_at_work(session: int) -> list[int]:
    """Ray names a worker after its function."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, session_of = (process / "cmdline").read_bytes(), os.getsid(int(process.name))
        except OSError:
            continue
        if name.startswith(b"ray::run_task") and session_of == session:
            found.append(int(process.name))
    return found


@pytest.fixture
def folder(real_documents: list[str], tmp_path: Path) -> Path:
    """Six files of about 9 MB, each with all pages many times, with different numbers."""
    root = tmp_path / "text"
    root.mkdir()
    for number in range(6):
        with (root / f"{number}.txt").open("w", encoding="utf-8") as file:
            size = copy = 0
            while size < 9_000_000:
                for text in real_documents:
                    size += file.write(re.sub("e", f"e{number}{copy}", text) + "\n\n")
                copy += 1
    return root


def test_ray_writes_the_same_corpus_even_if_a_worker_is_killed(folder: Path, tmp_path: Path) -> None:
    assert _collect(folder, tmp_path / "processes", "processes").wait(300) == 0
    run = _collect(folder, tmp_path / "ray", "ray")
    deadline = time.monotonic() + 120
    while not (workers := _workers_at_work(run.pid)) and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.05)
    assert workers, "no worker of Ray was seen at work"
    os.kill(workers[0], signal.SIGKILL)
    assert run.wait(300) == 0
    expected = _shards(tmp_path / "processes")
    assert len(expected) >= 3
    assert _shards(tmp_path / "ray") == expected
