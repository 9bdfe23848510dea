"""Kernels are an extra: whatever goes wrong while they are built, training runs without them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from groundup.kernels import native_library as module
from groundup.kernels.native_library import native_library

build_again = native_library.__wrapped__  # without the memory of this process


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The only compiler in reach is this script."""
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
        'test "$1" = --version',  # says its version, and fails on every source
        'test "$1" = --version || { for last; do :; done; echo damaged >"$last"; }',  # leaves what is no library
    ],
)
def test_a_compiler_that_does_not_work(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(module, "_processor_flags", lambda: module._NEEDED)
    a_compiler(tmp_path, monkeypatch, script)
    assert build_again() is None


def test_an_older_processor(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library with instructions that the processor lacks would end the process without a word."""
    monkeypatch.setattr(module, "_processor_flags", lambda: {"avx2", "fma"})
    assert build_again() is None


@pytest.mark.skipif(native_library() is None, reason="no processor with AVX-512 bf16, or no C++ compiler")
@pytest.mark.parametrize("there", [False, True])
def test_a_cache_that_cannot_be_written(own_cache: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """A directory that is somebody else's, or one that cannot be made."""
    if there:
        directory, access = own_cache / "groundup" / "native", os.access
        directory.mkdir(parents=True)
        monkeypatch.setattr(os, "access", lambda path, mode: path != directory and access(path, mode))
    else:
        own_cache.write_text("a file")
    assert build_again() is not None
    assert not list(own_cache.rglob("*.so"))


@pytest.mark.skipif(native_library() is None, reason="no processor with AVX-512 bf16, or no C++ compiler")
def test_it_is_built_once_and_whole(own_cache: Path) -> None:
    assert build_again() is not None
    (built,) = (own_cache / "groundup" / "native").iterdir()
    written = built.stat().st_mtime_ns
    shutil.copy(built, built.with_suffix(".123.tmp"))  # what a process leaves that was killed while it compiled
    assert build_again() is not None
    assert built.stat().st_mtime_ns == written
