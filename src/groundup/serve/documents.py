"""Indexes of documents that are served as models: their chat completions are answers with citations."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundup.core.artifact import read
from groundup.core.console import Console
from groundup.core.errors import ConfigError, GroundupError
from groundup.inference.prompting import format_for
from groundup.retrieval import CitedAnswer, Index, Reader, answer_question
from groundup.serve.http.streams import unless_gone_thread
from groundup.serve.http.transport import Json, ServerSentEvents, ignored_header
from groundup.serve.models.catalog import Models
from groundup.serve.models.leases import use_model
from groundup.serve.models.model import ServedModel
from groundup.serve.models.sources import named_path
from groundup.serve.openai.chat_schema import ChatBody
from groundup.serve.openai.errors import ApiError, from_groundup, shutting_down
from groundup.serve.openapi import describes

_MAX_TOKENS = 64
_RELOAD_SECONDS = 2.0  # an updated index is opened at most this often
_THREADS = ThreadPoolExecutor(4, "groundup-documents")  # answers do not delay the tokenization of other prompts
_UNUSED = (  # parameters of a chat request that have no effect on an answer from documents
    *("temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "logit_bias", "logprobs", "top_logprobs"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "tools", "tool_choice", "response_format"),
    *("structured_outputs", "reasoning_effort", "chat_template_kwargs"),
)


class ServedIndex:
    """An index that the server offers under a name.

    Args:
        name: Name in the API.
        directory: Directory of the index. If it is updated, the new index is opened.
        reader: Name of the served model that reads passages, or None to quote sentences.

    Raises:
        DataError: The directory is not an index.
        FormatError: A file is damaged, or another version of groundup wrote the index.
    """

    def __init__(self, name: str, directory: Path, reader: str | None = None) -> None:
        self.name, self.directory, self.reader = name, directory, reader
        self._index, self._checked = Index.open(directory), time.monotonic()
        self._lock = threading.Lock()

    def current(self) -> Index:
        """Return the newest finished index of the directory. It may be opened first, so a worker thread calls this."""
        if time.monotonic() - self._checked > _RELOAD_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._checked = time.monotonic()
                # If the index is being replaced now, the open index stays usable.
                with suppress(GroundupError, OSError):
                    if read(self.directory).digest != self._index.artifact.digest:
                        self._index = Index.open(self.directory)
            finally:
                self._lock.release()
        return self._index

    def description(self) -> Json:
        """Return the description of the index in the format of `/v1/models`. A worker thread calls this method."""
        index = self.current()
        return {
            "id": self.name,
            "object": "model",
            "created": int(datetime.fromisoformat(index.artifact.finished_at).timestamp()),
            "owned_by": "groundup",
            "documents": len(index.documents),
            "passages": len(index),
            "reader": self.reader,
            "has_chat_template": True,
            "loaded": True,
        }


def open_indexes(given: Sequence[str], models: Sequence[str], console: Console) -> dict[str, ServedIndex]:
    """Open the indexes of `groundup serve`. The first served model reads their passages.

    Args:
        given: Directories of the indexes, each as DIR or NAME=DIR.
        models: Names of the served models.
        console: Console for a line per index.

    Raises:
        ConfigError: Two indexes, or an index and a model, have the same name.
        DataError: A directory is not an index.
        FormatError: A file is damaged, or another version of groundup wrote an index.
    """
    reader = models[0] if models else None
    found: dict[str, ServedIndex] = {}
    for each in given:
        name, directory = named_path("index", each)
        if name in found or name in models:
            raise ConfigError(f"two models have the name {name!r}", fix="Write --index NAME=DIR.")
        found[name] = ServedIndex(name, directory, reader)
        what = f"read by {reader!r}" if reader else "best sentences, because no model is served"
        console.note(f"Serving the documents of {directory} as {name!r} ({what})")
    return found


def reader_of(request: Request, model: ServedModel, max_tokens: int | None = None) -> Reader:
    """Return the reader that answers a request.

    Args:
        request: HTTP request.
        model: Model that reads passages.
        max_tokens: Maximum number of tokens of the answer.
    """
    return Reader(
        model.engine,
        format_for(model.tokenizer, model.template),
        min(max_tokens or _MAX_TOKENS, _MAX_TOKENS),
        client=(request.client.host if request.client is not None else "",),
        timeout=request.app.state.limits.request_seconds,
    )


async def answer_request(
    request: Request, current: Callable[[], Index], question: str, reader: Reader | None
) -> CitedAnswer:
    """Answer a question in a thread. If the client disconnects, reading is cancelled.

    Args:
        request: HTTP request, whose body was read.
        current: Function that opens the index.
        question: The question.
        reader: Model that reads passages, or None to quote sentences.

    Raises:
        ClientGoneError: The client disconnected.
        GroundupError: The question or the index is not usable, or the model is overloaded.
    """

    def answer() -> CitedAnswer:
        return answer_question(current(), question, reader)

    work = asyncio.get_running_loop().run_in_executor(_THREADS, answer)
    return await unless_gone_thread(request.receive, work, reader.cancel if reader is not None else lambda: None)


async def chat_with_index(request: Request, served: ServedIndex, models: Models, body: ChatBody) -> Response:
    """Answer a chat completion request from an index. Only the last message of the user is searched for.

    Citations are `annotations` of the message in OpenAI's format. Their indices are those of "[1]" in the text.

    Args:
        request: HTTP request, whose body was read.
        served: The index.
        models: Models of the server, one of which may read passages.
        body: Body of the request.

    Raises:
        ApiError: The status is 400 if no message is a question.
    """
    question = next((message.content for message in reversed(body.conversation) if message.role == "user"), "")
    model = await use_model(request, models.use(served.reader)) if served.reader is not None else None
    reader = None if model is None else reader_of(request, model, body.limit)
    try:
        answer = await answer_request(request, served.current, question, reader)
    except GroundupError as error:
        closed = model is not None and model.engine.closed
        raise shutting_down() if closed else from_groundup(error, param="messages") from error
    headers = ignored_header((*body.ignored, *(name for name in _UNUSED if name in body.model_fields_set)))
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.name}
    message: Json = {
        "role": "assistant",
        "content": answer.text,
        "refusal": None,
        "annotations": citation_annotations(answer, served.name),
    }
    usage = {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
    if body.stream:
        chunk = {**head, "object": "chat.completion.chunk"}
        chunks = _chunks(chunk, message, usage if body.include_usage else None)
        return ServerSentEvents(chunks, lambda: None, headers)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    details = {"kind": answer.kind, "reason": answer.reason, "seconds": answer.seconds}
    content = {**head, "object": "chat.completion", "choices": [choice], "usage": usage, "answer": details}
    return JSONResponse(content, headers=headers)


async def _chunks(head: Json, message: Json, usage: Json | None) -> AsyncGenerator[Json]:
    for delta, reason in ((message, None), ({}, "stop")):
        yield {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
    if usage is not None:
        yield {**head, "choices": [], "usage": usage}


def citation_annotations(answer: CitedAnswer, name: str) -> list[Json]:
    """Return the citations of an answer as annotations of OpenAI's API.

    Args:
        answer: The answer.
        name: Name of the index in the API.
    """
    found: list[Json] = []
    for citation in answer.citations:
        marker = f"[{citation.number}]"
        start = answer.text.rfind(marker)
        position = f"start={citation.start}&end={citation.end}&id={citation.document_id}"
        place = f"/v1/documents/{quote(name, safe='')}/{citation.document}?{position}"
        cited = {
            "start_index": start,
            "end_index": start + len(marker),
            "title": citation.title or citation.origin,
            "url": citation.url or place,
        }
        file = {"filename": citation.origin, "page": citation.page, "quote": citation.quote, "passage": place}
        found.append({"type": "url_citation", "url_citation": cited, "file_citation": file})
    return found


def cited_document_routes(indexes: Mapping[str, ServedIndex]) -> list[Route]:
    """Return the route `GET /v1/documents/{name}/{number}`, which shows the text that a citation refers to.

    Args:
        indexes: Indexes by their names in the API.
    """

    @describes("Return the text of a cited document")
    async def document(request: Request) -> Response:
        name, number = request.path_params["name"], request.path_params["number"]
        if (served := indexes.get(name)) is None:
            fix = "Use the URL of a citation."
            raise ApiError(404, f"index {name[:80]!r}", rule="not found", fix=fix, param="name")
        expected = request.query_params.get("id", "")
        found = await asyncio.to_thread(lambda: document_json(served.current(), number, expected))
        if found is None:
            rule = "not found, or the index was updated"
            raise ApiError(404, f"document {number} of index {name[:80]!r}", rule=rule, fix="Ask again.", param="id")
        return JSONResponse(found)

    return [Route("/v1/documents/{name:path}/{number:int}", document, methods=["GET"])]


def document_json(index: Index, number: int, expected: str = "") -> dict[str, Any] | None:
    """Return a document of an index, or None if the index has no such document.

    Args:
        index: The index.
        number: Number of the document.
        expected: `Citation.document_id`, or "". After an update, another document may have the number.
    """
    if not 0 <= number < len(index.documents):
        return None
    document = index.documents[number]
    return None if expected and document.id != expected else asdict(document)
