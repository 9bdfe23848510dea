"""Folders of real text, and a console that says nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from groundup.core.console import Console

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # spawned workers import from there too


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def prose(real_documents: list[str]) -> list[str]:
    """Forty real pages of a hundred words and more."""
    return [text for text in real_documents if len(text.split()) > 100][:40]


@pytest.fixture
def folder(tmp_path: Path, prose: list[str]) -> Path:
    """A folder of text files, one page in each."""
    root = tmp_path / "notes"
    root.mkdir()
    for number, text in enumerate(prose):
        (root / f"page{number:02d}.txt").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
