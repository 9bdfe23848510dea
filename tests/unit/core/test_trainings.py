"""Other training processes are found, also after one was killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.core.trainings import announced_training, another_process_trains
from groundup.inference.threads import DecodeThreads

TRAIN = """
import sys
from groundup.core.trainings import announced_training
with announced_training("cpu"):
    print("started", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that announces a training until its standard input is closed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", TRAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"started\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_another_training_is_found_until_it_ends(training: subprocess.Popen[bytes]) -> None:
    assert another_process_trains()
    assert another_process_trains(), "the check must not release the lock"
    training.communicate()
    assert not another_process_trains()


def test_a_killed_training_is_forgotten(training: subprocess.Popen[bytes], tmp_path: Path) -> None:
    training.kill()
    training.wait()
    assert not another_process_trains()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_own_training_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not another_process_trains()
    with announced_training("cpu"):
        assert not another_process_trains()


def test_an_unwritable_cache_directory_does_not_stop_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "groundup").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with announced_training("cpu"):
        assert not another_process_trains()


def test_decoding_uses_half_of_the_threads_during_a_training(
    training: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    monkeypatch.setattr("groundup.inference.threads._CHECK_SECONDS", 0.0)
    threads = DecodeThreads(None)
    assert threads.current() == 3
    assert DecodeThreads(6).current() == 6
    training.communicate()
    assert threads.current() == 6
