"""C++ kernels are optional: training runs without them if they cannot be compiled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from groundup.kernels import native_library as module
from groundup.kernels.native_library import native_library

build_again = native_library.__wrapped__  # without the in-process cache


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make this script the only compiler."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "c++").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("CXX", raising=False)


def test_no_compiler(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert build_again() is None


@pytest.mark.parametrize(
    "script",
    [
        'test "$1" = --version',  # prints its version, but fails on every source
        'test "$1" = --version || { for last; do :; done; echo damaged >"$last"; }',  # writes an invalid library
    ],
)
def test_a_compiler_that_does_not_work(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(module, "_cpu_flags", lambda: module._REQUIRED_FLAGS)
    a_compiler(tmp_path, monkeypatch, script)
    assert build_again() is None


def test_an_older_cpu(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsupported instructions would kill the process without an error message."""
    monkeypatch.setattr(module, "_cpu_flags", lambda: {"sse4_2", "avx"})
    assert build_again() is None


@pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    """The cache directory belongs to another user, or cannot be created."""
    if exists:
        directory, access = own_cache / "groundup" / "native", os.access
        directory.mkdir(parents=True)
        monkeypatch.setattr(os, "access", lambda path, mode: path != directory and access(path, mode))
    else:
        own_cache.write_text("a file")
    assert build_again() is not None
    assert not list(own_cache.rglob("*.so"))


@pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
def test_the_library_is_built_once(own_cache: Path) -> None:
    assert build_again() is not None
    (built,) = (own_cache / "groundup" / "native").iterdir()
    written = built.stat().st_mtime_ns
    shutil.copy(built, built.with_suffix(".123.tmp"))  # file of a process that was killed while it compiled
    assert build_again() is not None
    assert built.stat().st_mtime_ns == written
