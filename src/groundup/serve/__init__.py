"""Models behind OpenAI's HTTP interface: `build_app` makes the application, `Server` runs it."""

from groundup.serve.app import build_app
from groundup.serve.guard import Guard
from groundup.serve.model import ServedModel
from groundup.serve.models import ServedModels
from groundup.serve.server import Server, bind, is_loopback, url_of

__all__ = ["Guard", "ServedModel", "ServedModels", "Server", "bind", "build_app", "is_loopback", "url_of"]
