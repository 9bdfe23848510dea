"""Applications over HTTP: which there are, with their forms, and what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundup.core.errors import GroundupError
from groundup.hub.resolve import OpenedClassifier
from groundup.serve.errors import ApiError, from_groundup
from groundup.serve.model import ServedModel
from groundup.serve.models import Models
from groundup.serve.schema import AppBody
from groundup.serve.streams import unless_gone
from groundup.serve.transport import Json, ServerSentEvents, read_request

_MAX_CONCURRENT = 8  # applications under way; their requests stand beside all others in the engine


class AppTask(Protocol):
    """An application at work on one call."""

    def run(self, tell: Callable[[Json], None]) -> Json:
        """Do it, in a thread of its own.

        Args:
            tell: takes `{"type": "progress", "done", "total"}` and `{"type": "text", "text"}`.

        Raises:
            GroundupError: wrong inputs, or more than the model can take.
        """
        ...

    def cancel(self) -> None:
        """End it; for another thread."""
        ...


class Applications(Protocol):
    """What a server can do beside chat."""

    def describe(self) -> list[Json]:
        """Each application, with its name and its inputs."""
        ...

    def task(self, name: str, model: ServedModel | OpenedClassifier, body: AppBody) -> AppTask | None:
        """What a call asks for; None: no application of that name."""
        ...


def application_routes(
    applications: Applications, models: Models, find: Callable[[str], ServedModel | OpenedClassifier] | None = None
) -> list[Route]:
    """The endpoints `GET /v1/apps` and `POST /v1/apps/{name}`.

    Args:
        find: what is called so, where applications run on more than `models`; raises as `Models.named` does.
    """
    find = find or models.get_model
    # Threads of their own: long pieces of work would hold up the encoding of everybody else's prompts.
    threads = ThreadPoolExecutor(_MAX_CONCURRENT, "groundup-app")

    async def listed(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": applications.describe()})

    async def run(request: Request) -> Response:
        body = await read_request(request, AppBody)
        wanted = body.model or next((each["id"] for each in await asyncio.to_thread(models.list_models)), "")
        model = await asyncio.to_thread(find, wanted)
        name = request.path_params["name"]
        task = applications.task(name, model, body)
        if task is None:
            raise ApiError(
                404,
                f"application {name[:80]!r}",
                rule=f"there are {', '.join(each['name'] for each in applications.describe())}",
                fix="Use one of these names.",
                param="name",
                code="app_not_found",
            )
        loop = asyncio.get_running_loop()
        if body.stream:
            return ServerSentEvents(_events(task, threads, wanted), task.cancel)
        try:
            work = loop.run_in_executor(threads, task.run, lambda _: None)
            return JSONResponse(await unless_gone(request.receive, _answered(work)) | {"model": wanted})
        finally:
            task.cancel()

    return [Route("/v1/apps", listed, methods=["GET"]), Route("/v1/apps/{name}", run, methods=["POST"])]


async def _answered(work: asyncio.Future[Json]) -> Json:
    try:
        return await work
    except GroundupError as error:
        raise from_groundup(error, param="inputs") from error


async def _events(task: AppTask, threads: ThreadPoolExecutor, model: str) -> AsyncGenerator[Json]:
    """What is told of the work as it goes on, and its result."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[Json | None] = asyncio.Queue()

    def tell(event: Json) -> None:
        loop.call_soon_threadsafe(told.put_nowait, event)

    work = loop.run_in_executor(threads, task.run, tell)
    work.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (event := await told.get()) is not None:
            yield event
        yield {"type": "result", **await _answered(work), "model": model}
    finally:
        task.cancel()
