"""Endpoints of the view "Documents": questions to an index, and the documents that citations refer to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.core.artifact import ARTIFACT, read
from groundup.core.errors import DataError, GroundupError
from groundup.retrieval import Index
from groundup.retrieval.answering import MAX_QUESTION_CHARACTERS
from groundup.serve import Body, read_request
from groundup.serve.documents import answer_request, document_json, reader_of
from groundup.serve.models.catalog import Models
from groundup.serve.models.leases import use_model
from groundup.studio.api_errors import to_api_error
from groundup.studio.workspace import Workspace


class AskRequest(Body):
    """Body of `POST /studio/api/ask`. Without a model, the best sentence is quoted."""

    index: str
    question: str = Field(max_length=MAX_QUESTION_CHARACTERS)
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
        reader = None if served is None else reader_of(request, served)
        try:
            found = await answer_request(request, lambda: _index(workspace, body.index), body.question, reader)
        except GroundupError as error:
            raise to_api_error(error) from error
        return JSONResponse(asdict(found))

    async def document(request: Request) -> Response:
        stage_id, number, expected = (request.query_params.get(name, "") for name in ("id", "number", "document_id"))
        return await _json(lambda: _document(_index(workspace, stage_id), number, expected))

    return [Route("/studio/api/ask", ask, methods=["POST"]), Route("/studio/api/document", document)]


def _document(index: Index, number: str, expected: str) -> dict[str, Any]:
    found = document_json(index, int(number), expected) if number.isdecimal() else None
    if found is None:
        raise DataError(f"document {number[:20]!r}", rule="not found", fix="Ask again: the index was updated.")
    return found


def _index(workspace: Workspace, stage_id: str) -> Index:
    directory = workspace.stage(stage_id).directory
    version = read(directory).digest if (directory / ARTIFACT).is_file() else ""
    return _opened(directory, version)


@lru_cache(maxsize=4)
def _opened(directory: Path, version: str) -> Index:
    """Open an index. An updated index has another version."""
    return Index.open(directory)


async def _json(compute: Callable[[], Any]) -> Response:
    try:
        return JSONResponse(await asyncio.to_thread(compute))
    except GroundupError as error:
        raise to_api_error(error) from error
