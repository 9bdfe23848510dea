"""Use of models by HTTP requests: a model stays loaded until the response was sent."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from groundup.serve.http.streams import unless_gone

T = TypeVar("T")
_LEASES = "groundup.leases"  # key of the ASGI scope


class ModelLeases:
    """ASGI middleware that releases the models of a request after its response was sent.

    Args:
        app: ASGI application that handles the requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        async with AsyncExitStack() as leases:
            scope[_LEASES] = leases
            await self._app(scope, receive, send)


async def use_model(request: Request, model: AbstractAsyncContextManager[T]) -> T:
    """Return a model that a request uses until its response was sent. The model may be loaded first.

    Args:
        request: HTTP request, whose body was read.
        model: Context manager of the model, such as `models.use(name)`.

    Raises:
        ClientGoneError: The client disconnected while the model was loaded.
    """
    leases: AsyncExitStack = request.scope[_LEASES]
    return await unless_gone(request.receive, leases.enter_async_context(model))
