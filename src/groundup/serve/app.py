"""HTTP endpoints of the OpenAI-compatible API."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.core.errors import ConfigError
from groundup.inference import TokenEvent
from groundup.inference.event_queue import EventStream
from groundup.inference.worker import RequestTimeoutError
from groundup.serve.documents import ServedIndex, chat_with_index, cited_document_routes
from groundup.serve.http.limits import ServerLimits
from groundup.serve.http.request_log import record_usage
from groundup.serve.http.streams import ClientGoneError, merged, unless_gone
from groundup.serve.http.transport import ServerSentEvents, ignored_header, read_request
from groundup.serve.models.catalog import Models
from groundup.serve.models.leases import ModelLeases, use_model
from groundup.serve.models.model import Job, ServedModel
from groundup.serve.openai.answers import Answer, Json
from groundup.serve.openai.chat_schema import ChatBody
from groundup.serve.openai.chats import ChatAnswer
from groundup.serve.openai.completions import CompletionAnswer
from groundup.serve.openai.embeddings import embedding_job, embedding_response, parts
from groundup.serve.openai.errors import (
    ApiError,
    client_too_slow,
    failed,
    from_groundup,
    shutting_down,
    timed_out,
    unknown_model,
)
from groundup.serve.openai.response_schema import ResponseBody
from groundup.serve.openai.responses import ResponseAnswer
from groundup.serve.openai.schema import CompletionBody, EmbeddingBody, GenerationBody, ModelBody
from groundup.serve.openai.tokenization import tokenizer_routes
from groundup.serve.openapi import describes, document_routes

_CLIENT_CLOSED = 499  # nginx's status code for a closed connection; it appears only in the log

_COMPILERS = ThreadPoolExecutor(4, "groundup-grammar")

B = TypeVar("B", bound=GenerationBody)
Events = AsyncGenerator[tuple[int, TokenEvent]]


def build_app(
    models: Models,
    *,
    routes: Sequence[BaseRoute] = (),
    limits: ServerLimits | None = None,
    indexes: Mapping[str, ServedIndex] | None = None,
) -> Starlette:
    """Return the ASGI application with all endpoints of the API.

    The application does not check the API key, so wrap it in a `RequestGuard`.

    Args:
        models: Models to serve.
        routes: Additional routes of the application.
        limits: Deadlines of requests and of their bodies.
        indexes: Indexes that are served as models, by their names.
    """
    described = [
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/responses", _respond, methods=["POST"]),
        Route("/v1/completions", _complete, methods=["POST"]),
        Route("/v1/embeddings", _embed, methods=["POST"]),
        Route("/v1/models", _all_models, methods=["GET"]),
        Route("/v1/models/{name:path}", _one_model, methods=["GET"]),
        Route("/health", _health, methods=["GET"]),
        *tokenizer_routes(models),
        *(cited_document_routes(indexes) if indexes else ()),
        *routes,
    ]
    app = Starlette(
        routes=[*described, *document_routes(described)],
        middleware=[Middleware(ModelLeases)],
        exception_handlers={
            ApiError: _on_api_error,
            HTTPException: _on_http_error,
            ClientGoneError: _on_client_gone,
            ClientDisconnect: _on_client_gone,
            RequestTimeoutError: _on_timeout,
            ConfigError: _on_config_error,
            Exception: _on_failure,
        },
    )
    app.state.models = models
    app.state.indexes = indexes or {}
    app.state.limits = limits or ServerLimits()
    return app


async def _get_model(request: Request, body: ModelBody) -> ServedModel:
    models: Models = request.app.state.models
    return await use_model(request, models.use(body.model))  # it may be loaded now


async def _list_models(request: Request) -> list[Json]:
    def listed() -> list[Json]:  # an updated index is opened
        indexes = [served.description() for served in request.app.state.indexes.values()]
        return [*request.app.state.models.list_models(), *indexes]

    return await asyncio.to_thread(listed)


@describes("Create a chat completion", ChatBody)
async def _chat(request: Request) -> Response:
    body = await read_request(request, ChatBody)
    if (served := request.app.state.indexes.get(body.model)) is not None:
        return await chat_with_index(request, served, request.app.state.models, body)
    model = await _get_model(request, body)
    job = await _job(request, model.chat, body)
    return await _answer(request, model, job, ChatAnswer(model, job, body), stream=body.stream)


@describes("Generate the next items of a conversation", ResponseBody)
async def _respond(request: Request) -> Response:
    body = await read_request(request, ResponseBody)
    model = await _get_model(request, body)
    job = await _job(request, model.chat, body)
    return await _answer(request, model, job, ResponseAnswer(model, job, body), stream=body.stream)


@describes("Complete a text", CompletionBody)
async def _complete(request: Request) -> Response:
    body = await read_request(request, CompletionBody)
    model = await _get_model(request, body)
    job = await _job(request, model.complete, body)
    return await _answer(request, model, job, CompletionAnswer(model, job, body), stream=body.stream)


@describes("Compute embeddings of texts", EmbeddingBody)
async def _embed(request: Request) -> Response:
    body = await read_request(request, EmbeddingBody)
    model = await _get_model(request, body)
    job = await asyncio.to_thread(embedding_job, model, body)
    outputs = [events[-1] for part in parts(job) for events in await _outputs(request, model, part)]
    response = await asyncio.to_thread(embedding_response, model, job, body, outputs)
    return JSONResponse(response, headers=ignored_header(job.ignored))


@describes("List the models")
async def _all_models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": await _list_models(request)})


@describes("Describe a model")
async def _one_model(request: Request) -> Response:
    name = request.path_params["name"]
    there = {each["id"]: each for each in await _list_models(request)}
    if name not in there:
        raise unknown_model(name, list(there))
    return JSONResponse(there[name])


@describes("Report whether the server accepts requests")
async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _job(request: Request, convert: Callable[[B, threading.Event], Job], body: B) -> Job:
    """Convert a body to a job in a thread: tokenization of a long prompt and compilation of a grammar take time.

    Slow grammars have their own threads, so that they do not delay other requests. If the client disconnects, the
    compilation stops.
    """
    cancelled = threading.Event()
    threads = _COMPILERS if body.is_constrained else None
    try:
        work = asyncio.get_running_loop().run_in_executor(threads, convert, body, cancelled)
        return await unless_gone(request.receive, work)
    finally:
        cancelled.set()


async def _answer(request: Request, model: ServedModel, job: Job, answer: Answer, *, stream: bool) -> Response:
    headers = ignored_header(job.ignored)
    if stream:
        streams = _submit(request, model, job)
        return ServerSentEvents(
            _chunks(model, answer, merged(streams)),
            lambda: model.cancel(job),
            headers,
            typed=answer.is_typed,
            failure=answer.failure,
        )
    return JSONResponse(answer.complete(await _outputs(request, model, job)), headers=headers)


def _submit(request: Request, model: ServedModel, job: Job) -> list[EventStream]:
    address = request.client.host if request.client is not None else ""
    streams = model.submit(job, address=address, timeout=request.app.state.limits.request_seconds)
    record_usage(request.scope, job.prompt_tokens, streams)
    return streams


async def _outputs(request: Request, model: ServedModel, job: Job) -> list[list[TokenEvent]]:
    """Run a job, and return the events of each of its requests."""
    streams = _submit(request, model, job)
    try:
        return await unless_gone(request.receive, _gathered(model, streams))
    finally:
        model.cancel(job)


async def _gathered(model: ServedModel, streams: Sequence[EventStream]) -> list[list[TokenEvent]]:
    """Wait for all events, and return the events of each choice."""
    outputs = await asyncio.gather(*(stream.rest() for stream in streams))
    for events in outputs:
        _require_not_cancelled(model, events[-1])
    return outputs


def _require_not_cancelled(model: ServedModel, event: TokenEvent) -> None:
    # While the client is connected, a request is cancelled only if the engine is closed or the client reads too slowly.
    if event.finish_reason == "cancelled":
        raise shutting_down() if model.engine.closed else client_too_slow()


async def _chunks(model: ServedModel, answer: Answer, events: Events) -> AsyncGenerator[Json]:
    async with aclosing(events):
        for chunk in answer.opening():
            yield chunk
        async for index, event in events:
            _require_not_cancelled(model, event)
            for chunk in answer.chunks(index, event):
                yield chunk
    for chunk in answer.closing():
        yield chunk


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Convert errors of Starlette, such as an unknown path or method, to errors in OpenAI's format."""
    assert isinstance(error, HTTPException)
    return ApiError(
        error.status_code,
        f"{request.method} {request.url.path[:80]}",
        rule=str(error.detail),
        fix="The paths are POST /v1/chat/completions, /v1/responses, /v1/completions, /v1/embeddings, "
        "and GET /v1/models, /health.",
        code="not_found" if error.status_code == 404 else "method_not_allowed",
        headers=error.headers,
    ).response


async def _on_timeout(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestTimeoutError)
    return timed_out(error).response


async def _on_config_error(request: Request, error: Exception) -> Response:
    """Report an error that appears only during generation, such as a grammar that becomes too complex."""
    assert isinstance(error, ConfigError)
    return from_groundup(error).response


async def _on_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED)


async def _on_failure(request: Request, error: Exception) -> Response:
    """Return a general error for an unexpected exception, whose traceback uvicorn writes only to the server's log."""
    return failed().response
