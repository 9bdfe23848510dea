"""An index is a model of its own in the API. Its answers have citations that OpenAI's client reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Message

from groundup.commands import index
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.inference import Engine, GenerationRequest, Sampling
from groundup.model import Transformer
from groundup.retrieval import Index, answer_question
from groundup.serve.documents import citation_annotations, cited_document_routes, open_indexes
from groundup.serve.http.streams import ClientGoneError, unless_gone_thread
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
    start, end, _ = (part.split("=")[1] for part in cited.url.partition("?")[2].split("&"))
    assert annotation.file_citation["quote"] == "The office is closed on Sundays."
    assert document["text"][int(start) : int(end)] == annotation.file_citation["quote"]


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


def test_requests_that_are_answered_at_the_same_time_share_the_thread_of_the_engine(
    server: Running, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads that compute steps with the same KV cache overwrite each other's blocks."""
    threads: set[int] = set()
    step = Engine.step

    def noted(*args: Any) -> Any:
        threads.add(threading.get_ident())
        return step(*args)

    monkeypatch.setattr(Engine, "step", noted)

    def complete() -> tuple[int, ...]:
        prompt = tuple(tokenizer.encode_prompt("The office"))
        request = GenerationRequest(prompt=prompt, sampling=Sampling(temperature=0.0), max_tokens=24)
        return server.engine.complete(request).token_ids

    alone = complete()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, server.client(), "On which days is the office closed?") for _ in range(4)]
        assert [complete() for _ in range(4)] == [alone] * 4
        answers = {each.result().choices[0].message.content for each in asked}
    assert answers == {"The office is closed on Sundays. [1]"}
    assert len(threads) == 1


def test_the_thread_of_a_disconnected_client_ends_before_its_model_is_released() -> None:
    stop = threading.Event()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def run() -> bool:
        work = asyncio.get_running_loop().run_in_executor(None, stop.wait, 30)
        with pytest.raises(ClientGoneError):
            await unless_gone_thread(receive, work, stop.set)
        return work.done()

    assert asyncio.run(run())


def test_parameters_without_effect_are_named(server: Running) -> None:
    raw = server.client().chat.completions.with_raw_response.create(
        model="documents", messages=[{"role": "user", "content": "When is the office closed?"}], temperature=0.5, n=2
    )
    assert raw.headers["x-groundup-ignored"].split(", ") == ["temperature", "n"]


def test_the_index_is_listed_and_its_name_is_unique(server: Running, folder: Path) -> None:
    assert [model.id for model in server.client().models.list()] == ["tiny", "documents"]
    with pytest.raises(ConfigError, match="NAME=DIR"):
        open_indexes([f"tiny={folder / 'documents'}"], ["tiny"], Console(quiet=True))


def test_an_updated_index_is_opened(server: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server runs for weeks, and its documents change."""
    monkeypatch.setattr("groundup.serve.documents._RELOAD_SECONDS", 0)
    (folder / "notes" / "garden.md").write_text("# Garden\n\nThe garden has forty apple trees.\n", encoding="utf-8")
    index.run(index.IndexConfig(source=folder / "notes", out=folder / "documents"), console=Console(quiet=True))
    place = "/v1/documents/documents/0?id="
    garden = Index.open(folder / "documents").documents[0].id
    (folder / "notes" / "garden.md").rename(folder / "notes" / "z-garden.md")
    index.run(index.IndexConfig(source=folder / "notes", out=folder / "documents"), console=Console(quiet=True))
    found = ask(server.client(), "How many apple trees does the garden have?").choices[0].message.content
    assert found == "The garden has forty apple trees. [1]"
    moved = server.http().get(place + garden)
    assert (moved.status_code, "index was updated" in moved.text) == (404, True)


def test_an_index_stays_open_while_it_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two renames of an update, the directory does not exist."""
    monkeypatch.setattr("groundup.serve.documents._RELOAD_SECONDS", -1)
    directory = folder / "documents"
    [served] = open_indexes([f"documents={directory}"], [], Console(quiet=True)).values()
    before = served.current()
    directory.rename(folder / "aside")
    assert served.current() is before
    assert served.description()["documents"] == len(before.documents)
    (folder / "aside").rename(directory)


def test_a_citation_of_an_index_with_any_name_opens_its_document(folder: Path) -> None:
    """A slash or a question mark in the name must not end the path of the URL."""
    name = "notes/2025?"
    [served] = open_indexes([f"{name}={folder / 'documents'}"], [], Console(quiet=True)).values()
    answer = answer_question(served.current(), "How many apple trees does the garden have?")
    [annotation] = citation_annotations(answer, name)
    with TestClient(Starlette(routes=cited_document_routes({name: served}))) as http:
        assert "forty apple trees" in http.get(annotation["url_citation"]["url"]).json()["text"]
