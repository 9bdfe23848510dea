"""What the stages that offer applications share."""

from __future__ import annotations

from pathlib import Path

from groundup.apps import Catalogue
from groundup.core.console import Console


def open_catalogue(folder: Path | None, console: Console) -> Catalogue:
    """All applications (see `Catalogue`); the files that declare none are named."""
    catalogue = Catalogue(folder)
    for error in catalogue.refused.values():
        console.warn(f"left out: {error}")
    return catalogue
