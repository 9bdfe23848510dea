"""The kernel cache after accidents. A process that was killed while it compiled left half a library, and then every
later start failed with "file too short", for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.kernels.cache import compiling, mark_first_pass, use_kernel_cache

KILLED_WHILE_COMPILING = """
import os, signal
from groundup.kernels.cache import compiling, use_kernel_cache
use_kernel_cache()
with compiling():
    os.kill(os.getpid(), signal.SIGKILL)
"""
SHOW = "import os; from groundup.kernels.cache import use_kernel_cache as use; use(); print(os.environ[{!r}])"
VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel cache of this test's own, with a library in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "")  # so that it is restored afterwards
    monkeypatch.delenv(VARIABLE)
    directory = tmp_path / "groundup" / "kernels"
    directory.mkdir(parents=True)
    (directory / "half.so").write_bytes(b"\x7fELF")
    return directory


def start(code: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_process_killed_while_it_compiled_empties_the_cache(kernels: Path) -> None:
    assert start(KILLED_WHILE_COMPILING).returncode < 0
    use_kernel_cache()
    assert not list(kernels.iterdir())
    assert os.environ[VARIABLE] == str(kernels)


def test_the_kernels_of_a_process_that_ended_well_stay(kernels: Path) -> None:
    assert start(KILLED_WHILE_COMPILING.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")).returncode == 0
    use_kernel_cache()
    assert (kernels / "half.so").exists()


def test_while_one_compiles_another_keeps_apart(kernels: Path) -> None:
    """Neither takes the other's unfinished library for a whole one, nor deletes it."""
    use_kernel_cache()
    with compiling():
        other = Path(start(SHOW.format(VARIABLE)).stdout.strip())
    assert other != kernels
    assert other.is_dir()
    assert (kernels / "half.so").exists()
    assert Path(start(SHOW.format(VARIABLE)).stdout.strip()) == kernels


def test_the_first_pass_is_marked_until_the_second(kernels: Path) -> None:
    use_kernel_cache()
    mark = kernels.with_name("kernels.lock")
    model = nn.Linear(2, 2)
    mark_first_pass(model)
    marks = []
    for _ in range(3):
        model(torch.ones(1, 2))
        marks.append(mark.read_text())
    assert marks == ["writing\n", "", ""]


def test_a_cache_that_cannot_be_written_is_done_without(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It once read as "no C++ compiler", and then failed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(kernels / "half.so"))  # a file: nothing can be made in it
    use_kernel_cache()
    assert Path(os.environ[VARIABLE]).is_dir()


def test_a_cache_that_the_user_chose_is_not_touched(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(kernels))
    assert start(KILLED_WHILE_COMPILING).returncode < 0
    use_kernel_cache()
    assert (kernels / "half.so").exists()
