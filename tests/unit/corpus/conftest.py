"""Fixtures: folders of real text, and a quiet console."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from groundup.core.console import Console

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # spawned workers import from it, too


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def prose(real_documents: list[str]) -> list[str]:
    """Forty real pages of at least a hundred words."""
    return [text for text in real_documents if len(text.split()) > 100][:40]


@pytest.fixture
def folder(tmp_path: Path, prose: list[str]) -> Path:
    """A folder of text files with one page per file."""
    root = tmp_path / "notes"
    root.mkdir()
    for number, text in enumerate(prose):
        (root / f"page{number:02d}.txt").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a temporary cache instead of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
