"""Indexes of documents that are served as models: their chat completions are answers with citations."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundup.core.console import Console
from groundup.core.errors import ConfigError, GroundupError
from groundup.hub.resolve import finished
from groundup.inference.prompting import format_for
from groundup.retrieval import CitedAnswer, Index, Reader, answer_question
from groundup.serve.chat_schema import ChatBody
from groundup.serve.errors import ApiError, from_groundup
from groundup.serve.leases import use_model
from groundup.serve.model import ServedModel
from groundup.serve.models import Models
from groundup.serve.openapi import describes
from groundup.serve.sources import named_path
from groundup.serve.streams import unless_gone
from groundup.serve.transport import Json, ServerSentEvents

_MAX_TOKENS = 64
_RELOAD_SECONDS = 2.0  # an updated index is opened at most this often


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
        self._index = Index.open(directory)
        self._version, self._checked = finished(directory), time.monotonic()

    @property
    def index(self) -> Index:
        """The newest finished index of the directory."""
        if time.monotonic() - self._checked > _RELOAD_SECONDS:
            self._checked = time.monotonic()
            if (version := finished(self.directory)) != self._version:
                with suppress(GroundupError):  # if it is being replaced now, the open index stays usable
                    self._index, self._version = Index.open(self.directory), version
        return self._index

    def answer(self, question: str, model: ServedModel | None, max_tokens: int | None = None) -> CitedAnswer:
        """Answer a question. A worker thread calls this method.

        Args:
            question: The question.
            model: Model that reads passages, or None to quote sentences.
            max_tokens: Maximum number of tokens of the answer.
        """
        reader = None
        if model is not None:
            format = format_for(model.tokenizer, model.template)
            reader = Reader(model.engine, format, min(max_tokens or _MAX_TOKENS, _MAX_TOKENS))
        return answer_question(self.index, question, reader)

    def description(self) -> Json:
        """Return the description of the index in the format of `/v1/models`."""
        return {
            "id": self.name,
            "object": "model",
            "created": int(self._version),
            "owned_by": "groundup",
            "documents": len(self.index.documents),
            "passages": len(self.index),
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
    work = asyncio.to_thread(served.answer, question, model, body.limit)
    try:
        answer = await unless_gone(request.receive, work)
    except GroundupError as error:
        raise from_groundup(error, param="messages") from error
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
        return ServerSentEvents(_chunks(chunk, message, usage if body.include_usage else None), lambda: None)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    details = {"kind": answer.kind, "reason": answer.reason, "seconds": answer.seconds}
    return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage, "answer": details})


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
        place = f"/v1/documents/{name}/{citation.document}?start={citation.start}&end={citation.end}"
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
        served = indexes.get(name)
        found = None if served is None else await asyncio.to_thread(partial(document_json, served.index, number))
        if found is None:
            fix = "Use the URL of a citation."
            raise ApiError(404, f"document {number} of index {name[:80]!r}", rule="not found", fix=fix, param="name")
        return JSONResponse(found)

    return [Route("/v1/documents/{name}/{number:int}", document, methods=["GET"])]


def document_json(index: Index, number: int) -> dict[str, Any] | None:
    """Return a document of an index, or None if its number is too large."""
    return asdict(index.documents[number]) if number < len(index.documents) else None
