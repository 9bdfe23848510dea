"""The view "Documents": questions to an index of a run, and the text that a citation opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup.commands import index
from groundup.core.console import Console


@pytest.fixture(scope="module")
def documents(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of an index in the run `one`."""
    folder = tmp_path_factory.mktemp("notes")
    (folder / "office.md").write_text("# Office\n\nThe 🏢 office is closed on Sundays.\n", encoding="utf-8")
    config = index.IndexConfig(source=folder, out=runs / "one" / "index")
    index.run(config, console=Console(quiet=True))
    return "one/index"


def test_a_citation_opens_its_document(studio: Any, documents: str) -> None:
    body = {"index": documents, "question": "On which days is the office closed?"}
    with studio.http() as http:
        answer = http.post("/studio/api/ask", json=body).json()
        [citation] = answer["citations"]
        params = {"id": documents, "number": citation["document"]}
        document = http.get("/studio/api/document", params=params).json()
    assert answer["text"] == "The 🏢 office is closed on Sundays. [1]"
    assert document["text"][citation["start"] : citation["end"]] == citation["quote"]


def test_errors_of_questions(studio: Any, documents: str, runs: Path) -> None:
    with studio.http() as http:
        assert "not found" in http.post("/studio/api/ask", json={"index": "one/none", "question": "x"}).text
        assert "no words" in http.post("/studio/api/ask", json={"index": documents, "question": "?"}).text
        small = {"index": documents, "question": "When is the office closed?", "model": "one/base"}
        assert "use a model with a longer context" in http.post("/studio/api/ask", json=small).text
        assert "not an index" in http.post("/studio/api/ask", json={"index": "one/base", "question": "x"}).text
        for number in ("9", "-1"):
            missing = http.get("/studio/api/document", params={"id": documents, "number": number})
            assert missing.status_code == 400
            assert "Ask again" in missing.text
