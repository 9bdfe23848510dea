"""OpenAI-compatible HTTP API. `build_app` builds the ASGI application, and `Server` runs it."""

from groundup.serve.app import build_app
from groundup.serve.applications import application_routes
from groundup.serve.body import Body
from groundup.serve.errors import ApiError, unknown_model
from groundup.serve.guard import RequestGuard
from groundup.serve.limits import ServerLimits
from groundup.serve.model import ServedModel
from groundup.serve.models import Models, ServedModels, model_object
from groundup.serve.server import Server, bind, is_loopback, url_of
from groundup.serve.transport import read_request

__all__ = [
    "ApiError",
    "Body",
    "Models",
    "RequestGuard",
    "ServedModel",
    "ServedModels",
    "Server",
    "ServerLimits",
    "application_routes",
    "bind",
    "build_app",
    "is_loopback",
    "model_object",
    "read_request",
    "unknown_model",
    "url_of",
]
