"""An index is a model of its own in the API. Its answers have citations that OpenAI's client reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from groundup.commands import index
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.inference import Engine
from groundup.model import Transformer
from groundup.serve.documents import open_indexes
from groundup.tokenizer import ChatTemplate, Tokenizer
from unit.serve.conftest import Running, running

TEXT = "# Office\n\nThe office is closed on Sundays. The kitchen is on the second floor.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served")
    (path / "notes").mkdir()
    (path / "notes" / "office.md").write_text(TEXT, encoding="utf-8")
    index.run(index.IndexConfig(source=path / "notes", out=path / "documents"), console=Console(quiet=True))
    return path


@pytest.fixture(scope="module")
def server(model: Transformer, tokenizer: Tokenizer, template: ChatTemplate, folder: Path) -> Iterator[Running]:
    with (
        Engine(model, tokenizer) as engine,
        running(engine, template, indexes=[str(folder / "documents")]) as server,
    ):
        yield server


def ask(client: openai.OpenAI, question: str, **options: object):  # type: ignore[no-untyped-def]
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="documents", messages=messages, **options)  # type: ignore[call-overload]


def test_a_citation_leads_to_the_text(server: Running) -> None:
    """The model has random weights, so no answer is supported, and the best sentence is quoted."""
    message = ask(server.client(), "On which days is the office closed?").choices[0].message
    [annotation] = message.annotations
    cited = annotation.url_citation
    assert message.content == "The office is closed on Sundays. [1]"
    assert message.content[cited.start_index : cited.end_index] == "[1]"
    assert annotation.file_citation["filename"] == "office.md"
    document = server.http().get(cited.url).json()
    start, end = (int(part.split("=")[1]) for part in cited.url.partition("?")[2].split("&"))
    assert document["text"][start:end] == annotation.file_citation["quote"] == "The office is closed on Sundays."


def test_a_stream_has_the_same_answer(server: Running) -> None:
    chunks = list(ask(server.client(), "On which days is the office closed?", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "The office is closed on Sundays. [1]"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_question_that_the_documents_do_not_answer_has_no_citation(server: Running) -> None:
    message = ask(server.client(), "Which wines does the airline serve?").choices[0].message
    assert (message.content, message.annotations) == ("The documents do not answer this question.", [])
    with pytest.raises(openai.BadRequestError, match="no words"):
        ask(server.client(), "?")
    assert server.http().get("/v1/documents/documents/7").status_code == 404
    assert server.http().get("/v1/documents/other/0").status_code == 404


def test_the_index_is_listed_and_its_name_is_unique(server: Running, folder: Path) -> None:
    assert [model.id for model in server.client().models.list()] == ["tiny", "documents"]
    with pytest.raises(ConfigError, match="NAME=DIR"):
        open_indexes([f"tiny={folder / 'documents'}"], ["tiny"], Console(quiet=True))


def test_an_updated_index_is_opened(server: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server runs for weeks, and its documents change."""
    monkeypatch.setattr("groundup.serve.documents._RELOAD_SECONDS", 0)
    (folder / "notes" / "garden.md").write_text("# Garden\n\nThe garden has forty apple trees.\n", encoding="utf-8")
    index.run(index.IndexConfig(source=folder / "notes", out=folder / "documents"), console=Console(quiet=True))
    found = ask(server.client(), "How many apple trees does the garden have?").choices[0].message.content
    assert found == "The garden has forty apple trees. [1]"
