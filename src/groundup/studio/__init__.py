"""The Studio: a page to use a model, to look inside of it, and to watch it learn. `build_studio` makes its server."""

from __future__ import annotations

from starlette.types import ASGIApp

from groundup.serve import application_routes, build_app
from groundup.serve.applications import Applications
from groundup.studio.home import Home
from groundup.studio.jobs import Jobs
from groundup.studio.routes import routes
from groundup.studio.shelf import Shelf
from groundup.studio.shield import Shield

__all__ = ["Home", "Jobs", "Shelf", "build_studio"]


def build_studio(home: Home, shelf: Shelf, jobs: Jobs, applications: Applications) -> ASGIApp:
    """Return the page, its endpoints and the OpenAI API of all models. Wrap the application in a `RequestGuard`."""
    return Shield(
        build_app(
            shelf, routes=[*application_routes(applications, shelf, shelf.for_applications), *routes(home, shelf, jobs)]
        )
    )
