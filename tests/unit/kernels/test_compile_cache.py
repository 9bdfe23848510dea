"""The compile cache after crashes.

A process that was killed while it compiled left an incomplete library, and every later start failed with "file too
short".
"""

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
    """A temporary compile cache with a library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "")  # monkeypatch then restores it after the test
    monkeypatch.delenv(VARIABLE)
    directory = tmp_path / "groundup" / "kernels"
    directory.mkdir(parents=True)
    (directory / "half.so").write_bytes(b"\x7fELF")
    return directory


def start(code: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_killed_while_it_compiled_empties_the_cache(kernels: Path) -> None:
    assert start(KILLED_WHILE_COMPILING).returncode < 0
    use_kernel_cache()
    assert not list(kernels.iterdir())
    assert os.environ[VARIABLE] == str(kernels)


def test_the_cache_is_kept_after_a_normal_exit(kernels: Path) -> None:
    assert start(KILLED_WHILE_COMPILING.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")).returncode == 0
    use_kernel_cache()
    assert (kernels / "half.so").exists()


def test_a_second_process_uses_another_cache_while_one_compiles(kernels: Path) -> None:
    """The second process neither loads nor deletes incomplete libraries."""
    use_kernel_cache()
    with compiling():
        other = Path(start(SHOW.format(VARIABLE)).stdout.strip())
    assert other != kernels
    assert other.is_dir()
    assert (kernels / "half.so").exists()
    assert Path(start(SHOW.format(VARIABLE)).stdout.strip()) == kernels


def test_the_cache_is_marked_from_the_first_pass_until_the_second(kernels: Path) -> None:
    use_kernel_cache()
    lock_file = kernels.with_name("kernels.lock")
    model = nn.Linear(2, 2)
    mark_first_pass(model)
    marks = []
    for _ in range(3):
        model(torch.ones(1, 2))
        marks.append(lock_file.read_text())
    assert marks == ["writing\n", "", ""]


def test_a_temporary_cache_replaces_a_read_only_one(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This failed once with the error "no C++ compiler"."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(kernels / "half.so"))  # a file, in which no directory can be created
    use_kernel_cache()
    assert Path(os.environ[VARIABLE]).is_dir()


def test_a_cache_set_by_the_user_is_not_emptied(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(kernels))
    assert start(KILLED_WHILE_COMPILING).returncode < 0
    use_kernel_cache()
    assert (kernels / "half.so").exists()
