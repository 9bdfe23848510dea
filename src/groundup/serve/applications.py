"""HTTP endpoints that list applications and run them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundup.core.errors import GroundupError
from groundup.hub.loading import OpenedClassifier
from groundup.serve.http.streams import unless_gone
from groundup.serve.http.transport import Json, ServerSentEvents, read_request
from groundup.serve.models.catalog import Models
from groundup.serve.models.leases import use_model
from groundup.serve.models.model import ServedModel
from groundup.serve.openai.errors import ApiError, from_groundup
from groundup.serve.openai.schema import AppBody
from groundup.serve.openapi import describes

_MAX_CONCURRENT = 8  # maximum number of applications that run at the same time


class AppTask(Protocol):
    """An application that runs to answer a request."""

    def run(self, on_event: Callable[[Json], None]) -> Json:
        """Run the application. A worker thread calls this method.

        Args:
            on_event: Function that is called with the events `{"type": "progress", "done", "total"}` and `{"type":
                "text", "text"}`.

        Returns:
            The result of the application as JSON.

        Raises:
            GroundupError: An input is invalid, or the inputs are too long for the context.
        """
        ...

    def cancel(self) -> None:
        """Cancel the application. Another thread calls this method."""
        ...


class Applications(Protocol):
    """Interface of the applications that a server offers."""

    def describe(self) -> list[Json]:
        """Return the name, the inputs and other properties of each application."""
        ...

    def task(self, name: str, model: ServedModel | OpenedClassifier, body: AppBody) -> AppTask | None:
        """Return the task that answers a request, or None if no application has this name."""
        ...


def application_routes(
    applications: Applications,
    models: Models,
    use: Callable[[str], AbstractAsyncContextManager[ServedModel | OpenedClassifier]] | None = None,
) -> list[Route]:
    """Return the routes `GET /v1/apps` and `POST /v1/apps/{name}`.

    Args:
        applications: Applications that the server offers.
        models: Models that the server serves.
        use: Function that returns the context of the model with a given name. Default: `models.use`.
    """
    find = use or models.use
    # Applications have a separate thread pool, so that they do not delay the tokenization of other prompts.
    threads = ThreadPoolExecutor(_MAX_CONCURRENT, "groundup-app")

    @describes("List the applications")
    async def listed(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": applications.describe()})

    @describes("Run an application", AppBody)
    async def run(request: Request) -> Response:
        body = await read_request(request, AppBody)
        requested = body.model or next((each["id"] for each in await asyncio.to_thread(models.list_models)), "")
        model = await use_model(request, find(requested))
        name = request.path_params["name"]
        task = applications.task(name, model, body)
        if task is None:
            raise ApiError(
                404,
                f"unknown application {name[:80]!r}",
                rule=f"the applications are {', '.join(each['name'] for each in applications.describe())}",
                fix="Use one of these names.",
                param="name",
                code="app_not_found",
            )
        loop = asyncio.get_running_loop()
        if body.stream:
            return ServerSentEvents(_events(task, threads, requested), task.cancel)
        try:
            work = loop.run_in_executor(threads, task.run, lambda _: None)
            return JSONResponse(await unless_gone(request.receive, _answered(work)) | {"model": requested})
        finally:
            task.cancel()

    return [Route("/v1/apps", listed, methods=["GET"]), Route("/v1/apps/{name}", run, methods=["POST"])]


async def _answered(work: asyncio.Future[Json]) -> Json:
    try:
        return await work
    except GroundupError as error:
        raise from_groundup(error, param="inputs") from error


async def _events(task: AppTask, threads: ThreadPoolExecutor, model: str) -> AsyncGenerator[Json]:
    """Yield the events of a task, followed by the result of the task."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Json | None] = asyncio.Queue()

    def send(event: Json) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    work = loop.run_in_executor(threads, task.run, send)
    work.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        yield {"type": "result", **await _answered(work), "model": model}
    finally:
        task.cancel()
