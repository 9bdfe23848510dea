"""Paths and files that every room relies on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from groundup.errors import ConfigError
from groundup.files import cache_dir, expand_home


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
    with pytest.raises(ConfigError, match="set HOME"):
        cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "groundup"
