"""The Studio, a web page on which users chat with models, inspect models and monitor training."""

from __future__ import annotations

from starlette.types import ASGIApp

from groundup.serve import application_routes, build_app
from groundup.serve.applications import Applications
from groundup.studio.jobs import Jobs
from groundup.studio.model_cache import StudioModels
from groundup.studio.routes import routes
from groundup.studio.security_headers import SecurityHeaders
from groundup.studio.workspace import Workspace

__all__ = ["Jobs", "StudioModels", "Workspace", "build_studio"]


def build_studio(workspace: Workspace, models: StudioModels, jobs: Jobs, applications: Applications) -> ASGIApp:
    """Build the ASGI app of the Studio: the page, its endpoints, and the OpenAI API for all models.

    Args:
        workspace: The runs, models and recipes that the Studio shows.
        models: The models, which are loaded when requests name them.
        jobs: The runs that users start from the page.
        applications: The applications that the Studio offers.

    Returns:
        An ASGI app that does not authenticate requests. Wrap the app in a `RequestGuard` before serving it.
    """
    return SecurityHeaders(
        build_app(
            models,
            routes=[
                *application_routes(applications, models, models.use_any),
                *routes(workspace, models, jobs),
            ],
        )
    )
