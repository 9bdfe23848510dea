from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def documents_folder(request: pytest.FixtureRequest) -> Path:
    """Real PDF files."""
    folder: Path = request.config.rootpath.parent / "shared" / "data" / "documents"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not here")
    return folder
