"""OpenAI-compatible HTTP API. `build_app` builds the ASGI application, and `Server` runs it."""

from groundup.serve.app import build_app
from groundup.serve.applications import application_routes
from groundup.serve.http.guard import RequestGuard
from groundup.serve.http.limits import ServerLimits
from groundup.serve.http.server import Server, bind, is_loopback, url_of
from groundup.serve.http.transport import read_request
from groundup.serve.models.catalog import Models, ServedModels, model_object
from groundup.serve.models.model import ServedModel
from groundup.serve.openai.body import Body
from groundup.serve.openai.errors import ApiError, unknown_model

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
