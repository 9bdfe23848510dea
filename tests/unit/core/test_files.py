"""Tests of paths, atomic writes and JSON files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from groundup.core.errors import ConfigError
from groundup.core.files import atomic_directory, atomic_file, cache_dir, expand_home


def test_home_directories_are_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert expand_home(Path("~/notes")) == tmp_path / "notes"
    assert expand_home(Path("no/~/home")) == Path("no/~/home")
    assert cache_dir() == tmp_path / ".cache" / "groundup"


@pytest.mark.skipif(os.name == "nt", reason="requires the POSIX user database")
def test_a_user_without_a_home_directory_is_an_error_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a container, the user ID may be unknown, and pathlib then raises RuntimeError."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "groundup"


@pytest.mark.parametrize("atomic", [atomic_file, atomic_directory])
def test_errors_name_the_requested_path(tmp_path: Path, atomic: Callable[[Path], AbstractContextManager[Path]]) -> None:
    """The temporary path no longer exists when the user reads the message."""
    kind_of_the_other = tmp_path / "wanted"
    kind_of_the_other.mkdir() if atomic is atomic_file else kind_of_the_other.touch()
    long = tmp_path / ("x" * 255)
    for path in (kind_of_the_other, long):
        with pytest.raises(OSError) as caught, atomic(path):
            pass
        assert str(caught.value.filename) == str(path)
        assert caught.value.filename2 is None
        assert [entry.name for entry in tmp_path.iterdir()] == ["wanted"]


def test_a_directory_is_replaced_without_temporary_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_directory(tmp_path / "wanted") as made:
            (made / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["wanted", "wanted/second"]


def test_a_directory_is_kept_if_the_replacement_fails(tmp_path: Path) -> None:
    """At the time of the failure, the old directory has already been renamed."""
    (tmp_path / "wanted" / "first").mkdir(parents=True)
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "wanted") as made:
        made.chmod(0o700)
        made.rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").rmdir()
    assert (tmp_path / "wanted" / "first").is_dir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="requires /dev/full, a device on Linux that is always full")
def test_a_disk_full_error_names_the_file(tmp_path: Path) -> None:
    """The OSError that `write` raises does not contain a file name."""
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "wanted"), Path("/dev/full").open("wb") as full:
        full.write(bytes(100_000))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "wanted")
