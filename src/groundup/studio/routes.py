"""HTTP routes of the Studio: the files of the page, the JSON endpoints, and the reports in sandboxed frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.chat import ChatFormat, PromptFormat, Session, Settings, TextFormat
from groundup.chat.session import Turn
from groundup.core.errors import DataError, GroundupError
from groundup.corpus import read_card
from groundup.corpus.lookup import find_documents, occurrences
from groundup.report import read_run, render, render_card
from groundup.report.page import content_policy
from groundup.serve import Body, ServedModel, read_request
from groundup.serve.models.leases import use_model
from groundup.studio import inspection
from groundup.studio.api_errors import to_api_error
from groundup.studio.curves import new_rows, plan_and_samples
from groundup.studio.documents import question_routes
from groundup.studio.jobs import Jobs
from groundup.studio.model_cache import InspectedModel, StudioModels
from groundup.studio.workspace import Workspace, run_name

# A sandboxed frame has an opaque origin, so its scripts cannot access the Studio's page or its server.
_SANDBOX = "frame-ancestors 'self'; sandbox"
TOKENS_PAGE = "tokens.html"

_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAX_RESULTS = 20  # Maximum number of documents that a search returns.
_MAX_SEARCH_SECONDS = 10.0
_MAX_TEXT_CHARS = 20_000
_MAX_MESSAGE_CHARS = 1_000_000
_MAX_TURNS = 1000

Json = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


def sandboxed_page(workspace: Workspace, kind: str, name: str) -> tuple[str, str]:
    """Return a report as HTML, and its Content-Security-Policy.

    Args:
        workspace: The workspace that contains the run or the stage.
        kind: Kind of the page: "card" (of a corpus), "report" (of a run), or "tokens" (of a fine-tuning stage).
        name: Name of the run, or id of the stage.

    Raises:
        DataError: The page does not exist.
        FormatError: A record is damaged.
    """
    renderers: dict[str, Callable[[], tuple[str, str]]] = {
        "card": lambda: (render_card(read_card(workspace.stage(name).directory)), content_policy(script=True)),
        "report": lambda: (render(read_run(workspace.run(name).directory)), content_policy(script=True)),
        "tokens": lambda: (_tokens_page(workspace, name), "default-src 'none'; style-src 'unsafe-inline'"),
    }
    if kind not in renderers:
        raise DataError(f"page {kind[:80]!r}", rule="not found", fix=f"Request one of {', '.join(renderers)}.")
    page, policy = renderers[kind]()
    scripts = " allow-scripts" if "script-src" in policy else ""
    return page, f"{policy}; {_SANDBOX}{scripts}"


def _tokens_page(workspace: Workspace, stage_id: str) -> str:
    path = workspace.stage(stage_id).directory / TOKENS_PAGE
    if not path.is_file():
        raise DataError(f"stage {stage_id[:80]!r}", rule=f"no {TOKENS_PAGE}", fix="Choose a fine-tuning stage.")
    return path.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """The number of turns of a conversation that were dropped because they do not fit into the context window.

    Attributes:
        dropped: Number of dropped turns. The oldest turns are dropped first.
        context_length: Size of the context window in tokens.
    """

    dropped: int
    context_length: int


def fit_context_window(
    served: ServedModel,
    turns: Sequence[tuple[str, str]],
    prompt: str,
    *,
    system: str = "",
    max_tokens: int | None = None,
) -> ContextWindow:
    """Drop the oldest turns until the conversation and its answer fit into the context window.

    Args:
        served: The model.
        turns: Earlier turns as pairs of user message and answer. The oldest turn is first.
        prompt: The next user message.
        system: System prompt, which is ignored if the chat template does not support system prompts.
        max_tokens: Maximum length of the answer in tokens. At most a quarter of the context window is reserved for the
            answer.

    Raises:
        ConfigError: The next user message alone does not fit into the context window.
    """
    form: PromptFormat
    form = ChatFormat(served.template) if served.template else TextFormat(served.tokenizer, ())
    settings = Settings(system=system if system and form.supports_system else None, max_tokens=max_tokens)
    history = [Turn(user, answer, "stop", 0, 0, 0, 0.0) for user, answer in turns]
    session = Session(served.engine, form, settings, history)
    _, dropped = session.fit_turns(prompt)
    return ContextWindow(dropped, session.context_length)


class StartRequest(Body):
    """Body of `POST /studio/api/start`."""

    recipe: str
    name: str
    overrides: list[str] = Field(default_factory=list, max_length=50)


class StopRequest(Body):
    """Body of `POST /studio/api/stop`."""

    run: str


class InsideRequest(Body):
    """Body of `POST /studio/api/inside/...`. Each endpoint uses only some of the fields."""

    model: str
    text: str = Field("", max_length=_MAX_TEXT_CHARS)
    layer: int = Field(0, ge=0)
    token: int = Field(0, ge=0)


class ConversationTurn(Body):
    """A user message and its answer."""

    user: str = Field(max_length=_MAX_MESSAGE_CHARS)
    answer: str = Field(max_length=_MAX_MESSAGE_CHARS)


class WindowRequest(Body):
    """Body of `POST /studio/api/window`: a conversation and the next user message."""

    model: str
    turns: list[ConversationTurn] = Field(default_factory=list, max_length=_MAX_TURNS)
    user: str = Field(max_length=_MAX_MESSAGE_CHARS)
    system: str = Field("", max_length=_MAX_MESSAGE_CHARS)
    max_tokens: int | None = Field(None, ge=1)


def routes(workspace: Workspace, models: StudioModels, jobs: Jobs) -> list[BaseRoute]:
    """Return all routes of the Studio except the routes of the OpenAI API."""
    return [
        Route("/", lambda _: RedirectResponse("/studio/")),
        Route("/studio", lambda _: RedirectResponse("/studio/")),
        *_static_routes(),
        *_overview_routes(workspace, models, jobs),
        *_training_routes(workspace, jobs),
        *_chat_routes(models),
        *_inside_routes(models),
        *_data_routes(workspace),
        *question_routes(workspace, models),
    ]


def _static_routes() -> list[BaseRoute]:
    """Return one route per static file, so that a request cannot name any other file."""
    static = files("groundup.studio").joinpath("static")

    def file_handler(name: str) -> Handler:
        media_type = _MEDIA_TYPES[Path(name).suffix]

        async def serve(_: Request) -> Response:
            content = await asyncio.to_thread(static.joinpath(name).read_bytes)
            return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

        return serve

    names = [item.name for item in static.iterdir() if Path(item.name).suffix in _MEDIA_TYPES]
    return [
        Route("/studio/", file_handler("index.html")),
        *(Route(f"/studio/{name}", file_handler(name)) for name in names),
    ]


def _overview_routes(workspace: Workspace, models: StudioModels, jobs: Jobs) -> list[BaseRoute]:
    def overview() -> Json:
        return {
            "name": workspace.root.name,
            "default_model": workspace.default_model,
            "runs": [
                {
                    "name": run.name,
                    "running": run.running,
                    "has_recipe": run.has_recipe,
                    "has_report": run.has_report,
                    "job": jobs.status(run.name),
                    "stages": [
                        {key: value for key, value in asdict(stage).items() if key != "directory"}
                        | {"has_tokens_page": (stage.directory / TOKENS_PAGE).is_file()}
                        for stage in run.stages
                    ],
                }
                for run in workspace.runs()
            ],
            "models": [
                {key: value for key, value in asdict(model).items() if key != "directory"}
                for model in workspace.models()
            ],
            "loaded": models.loaded_names(),
            "recipes": [{"file": file, "name": run_name(path)} for file, path in workspace.recipes().items()],
        }

    async def handle_overview(_: Request) -> Response:
        return await _json_response(overview)

    return [Route("/studio/api/overview", handle_overview)]


def _training_routes(workspace: Workspace, jobs: Jobs) -> list[BaseRoute]:
    async def stage(request: Request) -> Response:
        stage_id, cursor = _query(request, "id"), _query(request, "cursor")

        def read() -> Json:
            directory = workspace.stage(stage_id).directory
            return new_rows(directory, cursor) | plan_and_samples(directory)

        return await _json_response(read)

    async def log(request: Request) -> Response:
        return await _json_response(lambda: {"text": jobs.log(_query(request, "run"))})

    async def start(request: Request) -> Response:
        body = await read_request(request, StartRequest)

        def begin() -> Json:
            recipe = workspace.recipes().get(body.recipe)
            if recipe is None:
                fix = "Reload the page to list the recipes."
                raise DataError(f"recipe {body.recipe[:80]!r}", rule="not found", fix=fix)
            jobs.start(recipe, body.name, body.overrides)
            return {"run": body.name}

        return await _json_response(begin)

    async def stop(request: Request) -> Response:
        body = await read_request(request, StopRequest)

        def end() -> Json:
            jobs.stop(body.run)
            return {"run": body.run}

        return await _json_response(end)

    return [
        Route("/studio/api/stage", stage),
        Route("/studio/api/log", log),
        Route("/studio/api/start", start, methods=["POST"]),
        Route("/studio/api/stop", stop, methods=["POST"]),
    ]


def _chat_routes(models: StudioModels) -> list[BaseRoute]:
    async def window(request: Request) -> Response:
        body = await read_request(request, WindowRequest)
        turns = [(turn.user, turn.answer) for turn in body.turns]
        served = await use_model(request, models.use(body.model))

        def fit() -> Json:
            return asdict(fit_context_window(served, turns, body.user, system=body.system, max_tokens=body.max_tokens))

        return await _json_response(fit)

    return [Route("/studio/api/window", window, methods=["POST"])]


def _inside_routes(models: StudioModels) -> list[BaseRoute]:
    inspections: dict[str, Callable[[InspectedModel, InsideRequest], Json]] = {
        "surprisal": lambda model, body: inspection.token_surprisals(model, body.text),
        "attention": lambda model, body: inspection.attention_weights(model, body.text, body.layer),
        "lens": lambda model, body: inspection.logit_lens(model, body.text),
        "embeddings": lambda model, body: inspection.nearest_embeddings(model, body.token),
        "parameters": lambda model, body: inspection.parameters(model),
    }

    def handler(inspect: Callable[[InspectedModel, InsideRequest], Json]) -> Handler:
        async def answer(request: Request) -> Response:
            body = await read_request(request, InsideRequest)
            model = await use_model(request, models.inspect(body.model))
            return await _json_response(lambda: inspect(model, body))

        return answer

    return [
        Route(f"/studio/api/inside/{name}", handler(inspect), methods=["POST"]) for name, inspect in inspections.items()
    ]


def _data_routes(workspace: Workspace) -> list[BaseRoute]:
    async def search(request: Request) -> Response:
        stage_id, text = _query(request, "id"), _query(request, "text")

        def find() -> Json:
            corpus, deadline = workspace.stage(stage_id).directory, time.monotonic() + _MAX_SEARCH_SECONDS
            matches = []
            for match in occurrences(corpus, text, ignore_case=True) if text else ():
                matches.append(asdict(match))
                if len(matches) > _MAX_RESULTS or time.monotonic() > deadline:
                    break
            return {"matches": matches[:_MAX_RESULTS], "more": len(matches) > _MAX_RESULTS}

        return await _json_response(find)

    async def fates(request: Request) -> Response:
        stage_id, document = _query(request, "id"), _query(request, "text")

        def find() -> Json:
            corpus = workspace.stage(stage_id).directory
            fates = list(islice(find_documents(corpus, document), _MAX_RESULTS + 1)) if document else []
            shown = [asdict(fate) | {"is_kept": hasattr(fate, "shard")} for fate in fates[:_MAX_RESULTS]]
            return {"fates": shown, "more": len(fates) > _MAX_RESULTS}

        return await _json_response(find)

    async def page(request: Request) -> Response:
        kind, name = request.path_params["kind"], request.path_params["name"]
        try:
            content, policy = await asyncio.to_thread(sandboxed_page, workspace, kind, name)
        except GroundupError as error:
            raise to_api_error(error) from error
        return Response(content, media_type="text/html", headers={"Content-Security-Policy": policy})

    return [
        Route("/studio/api/search", search),
        Route("/studio/api/fates", fates),
        Route("/studio/page/{kind}/{name:path}", page),
    ]


def _query(request: Request, name: str) -> str:
    return request.query_params.get(name, "")[:_MAX_TEXT_CHARS]


async def _json_response(compute: Callable[[], Json]) -> Response:
    """Run `compute` in a thread, so that other requests are not blocked, and return the result as JSON."""
    try:
        return JSONResponse(await asyncio.to_thread(compute))
    except GroundupError as error:
        raise to_api_error(error) from error
