"""Paths and files that every room relies on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from groundup.core.errors import ConfigError
from groundup.core.files import atomic_directory, atomic_file, cache_dir, expand_home


def test_home_directories_are_put_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert expand_home(Path("~/notes")) == tmp_path / "notes"
    assert expand_home(Path("no/~/home")) == Path("no/~/home")
    assert cache_dir() == tmp_path / ".cache" / "groundup"


@pytest.mark.skipif(os.name == "nt", reason="POSIX's user database")
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Containers run under ids that no user has: pathlib then raises a RuntimeError."""

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
def test_errors_name_what_was_asked_for(tmp_path: Path, atomic: Callable[[Path], AbstractContextManager[Path]]) -> None:
    """The temporary beside it is a name that nobody gave and that is gone when the message is read."""
    kind_of_the_other = tmp_path / "wanted"
    kind_of_the_other.mkdir() if atomic is atomic_file else kind_of_the_other.touch()
    long = tmp_path / ("x" * 255)
    for path in (kind_of_the_other, long):
        with pytest.raises(OSError) as caught, atomic(path):
            pass
        assert str(caught.value.filename) == str(path)
        assert caught.value.filename2 is None
        assert [entry.name for entry in tmp_path.iterdir()] == ["wanted"]


def test_a_directory_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_directory(tmp_path / "wanted") as made:
            (made / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["wanted", "wanted/second"]


def test_what_cannot_be_replaced_stays(tmp_path: Path) -> None:
    """The old directory has been moved out of the way by then."""
    (tmp_path / "wanted" / "first").mkdir(parents=True)
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "wanted") as made:
        made.chmod(0o700)
        made.rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").rmdir()
    assert (tmp_path / "wanted" / "first").is_dir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    """`write` does not know the name of what it writes."""
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "wanted"), Path("/dev/full").open("wb") as full:
        full.write(bytes(100_000))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "wanted")
