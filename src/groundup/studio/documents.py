"""Endpoints of the view "Documents": questions to an index, and the documents that citations refer to."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.core.errors import DataError, GroundupError
from groundup.hub.resolve import finished
from groundup.inference.prompting import format_for
from groundup.retrieval import Index, Reader, answer_question
from groundup.serve import Body, ServedModel, read_request
from groundup.serve.leases import use_model
from groundup.serve.models import Models
from groundup.studio.api_errors import to_api_error
from groundup.studio.workspace import Workspace

_MAX_QUESTION_CHARS = 2_000


class AskRequest(Body):
    """Body of `POST /studio/api/ask`. Without a model, the best sentence is quoted."""

    index: str
    question: str = Field(max_length=_MAX_QUESTION_CHARS)
    model: str = ""


def question_routes(workspace: Workspace, models: Models) -> list[BaseRoute]:
    """Return the routes that answer questions from an index and show its documents.

    Args:
        workspace: The workspace that contains the indexes.
        models: The models that may read passages.
    """

    async def ask(request: Request) -> Response:
        body = await read_request(request, AskRequest)
        served = await use_model(request, models.use(body.model)) if body.model else None
        return await _json(lambda: _answer(_index(workspace, body.index), body.question, served))

    async def document(request: Request) -> Response:
        stage_id, number = request.query_params.get("id", ""), request.query_params.get("number", "")
        return await _json(lambda: _document(_index(workspace, stage_id), number))

    return [Route("/studio/api/ask", ask, methods=["POST"]), Route("/studio/api/document", document)]


def _answer(index: Index, question: str, served: ServedModel | None) -> dict[str, Any]:
    reader = None if served is None else Reader(served.engine, format_for(served.tokenizer, served.template))
    return asdict(answer_question(index, question, reader))


def _document(index: Index, number: str) -> dict[str, Any]:
    if not number.isdecimal() or int(number) >= len(index.documents):
        raise DataError(f"document {number[:20]!r}", rule="not found", fix="Ask again: the index was updated.")
    return asdict(index.documents[int(number)])


def _index(workspace: Workspace, stage_id: str) -> Index:
    directory = workspace.stage(stage_id).directory
    return _opened(directory, finished(directory))


@lru_cache(maxsize=4)
def _opened(directory: Path, version: float) -> Index:
    """Open an index. An updated index has another version."""
    return Index.open(directory)


async def _json(compute: Any) -> Response:
    try:
        return JSONResponse(await asyncio.to_thread(compute))
    except GroundupError as error:
        raise to_api_error(error) from error
