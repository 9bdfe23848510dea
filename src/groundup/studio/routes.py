"""What the page asks of its server, in JSON, beside OpenAI's interface; and the page itself."""

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
from groundup.studio import looking
from groundup.studio.curves import new_rows, told
from groundup.studio.home import Home, name_of
from groundup.studio.jobs import Jobs
from groundup.studio.refusals import refused
from groundup.studio.shelf import Shelf

# A frame of an origin of its own: it reaches neither the Studio nor its server.
_FRAMED = "frame-ancestors 'self'; sandbox"
XRAY = "xray.html"


def framed(home: Home, kind: str, place: str) -> tuple[str, str]:
    """A page, and the policy that it is shown under.

    Args:
        kind: "card" of a corpus, "report" of a run, "xray" of a stage that tunes.

    Raises:
        DataError: there is none.
        FormatError: what it is made from is damaged.
    """
    makers: dict[str, Callable[[], tuple[str, str]]] = {
        "card": lambda: (render_card(read_card(home.stage(place).directory)), content_policy(script=True)),
        "report": lambda: (render(read_run(home.run(place).directory)), content_policy(script=True)),
        "xray": lambda: (_file(home, place), "default-src 'none'; style-src 'unsafe-inline'"),
    }
    if kind not in makers:
        raise DataError(f"{kind[:80]}: no such page", rule=f"there are {', '.join(makers)}", fix="Ask for one of them.")
    page, policy = makers[kind]()
    scripts = " allow-scripts" if "script-src" in policy else ""
    return page, f"{policy}; {_FRAMED}{scripts}"


def _file(home: Home, place: str) -> str:
    path = home.stage(place).directory / XRAY
    if not path.is_file():
        raise DataError(f"{place[:80]}: no {XRAY}", rule="a stage that tunes leaves one", fix="Tune a model first.")
    return path.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Window:
    """What fits.

    Attributes:
        dropped: number of the oldest turns that are left out.
        context_length: tokens that the conversation and the next answer share.
    """

    dropped: int
    context_length: int


def window_of(
    served: ServedModel,
    turns: Sequence[tuple[str, str]],
    prompt: str,
    *,
    system: str = "",
    max_tokens: int | None = None,
) -> Window:
    """Drop the oldest turns until the rest, the prompt and an answer fit into the context.

    Args:
        turns: (what a person said, the answer), oldest first.
        system: left out for a model without a place for it.
        max_tokens: of the answer, for which up to a quarter of the context is reserved.

    Raises:
        ConfigError: the prompt alone does not fit.
    """
    form: PromptFormat
    form = ChatFormat(served.template) if served.template else TextFormat(served.tokenizer, ())
    settings = Settings(system=system if system and form.takes_system else None, max_tokens=max_tokens)
    said = [Turn(user, answer, "stop", 0, 0, 0, 0.0) for user, answer in turns]
    session = Session(served.engine, form, settings, said)
    _, dropped = session.fit_turns(prompt)
    return Window(dropped, session.context_length)


_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MOST_FOUND = 20  # documents, of a search
_SEARCH_SECONDS = 10.0  # in a corpus of any size
_TEXT_CHARACTERS = 20_000
_CHAT_CHARACTERS = 1_000_000  # of one message
_TURNS = 1000

Json = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


class Start(Body):
    """`POST /studio/api/start`."""

    recipe: str
    name: str
    changes: list[str] = Field(default_factory=list, max_length=50)


class Named(Body):
    """`POST /studio/api/stop`."""

    run: str


class InsideRequest(Body):
    """`POST /studio/api/inside/...`: the model, and what of it is looked at."""

    model: str
    text: str = Field("", max_length=_TEXT_CHARACTERS)
    layer: int = Field(0, ge=0)
    token: int = Field(0, ge=0)


class Exchange(Body):
    """One turn of a conversation: what a person said, and the answer."""

    user: str = Field(max_length=_CHAT_CHARACTERS)
    answer: str = Field(max_length=_CHAT_CHARACTERS)


class Conversation(Body):
    """`POST /studio/api/window`: a conversation, and the next thing that a person says."""

    model: str
    turns: list[Exchange] = Field(default_factory=list, max_length=_TURNS)
    user: str = Field(max_length=_CHAT_CHARACTERS)
    system: str = Field("", max_length=_CHAT_CHARACTERS)
    max_tokens: int | None = Field(None, ge=1)


def routes(home: Home, shelf: Shelf, jobs: Jobs) -> list[BaseRoute]:
    """All of them."""
    return [
        Route("/", lambda _: RedirectResponse("/studio/")),
        Route("/studio", lambda _: RedirectResponse("/studio/")),
        *_static(),
        *_overview(home, shelf, jobs),
        *_training(home, jobs),
        *_chatting(shelf),
        *_inside(shelf),
        *_data(home),
    ]


def _static() -> list[BaseRoute]:
    """The files of the page, by name: what is not among them is not there."""
    static = files("groundup.studio").joinpath("static")

    def serving(name: str) -> Handler:
        kind = _KINDS[Path(name).suffix]

        async def serve(_: Request) -> Response:
            content = await asyncio.to_thread(static.joinpath(name).read_bytes)
            return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

        return serve

    names = [item.name for item in static.iterdir() if Path(item.name).suffix in _KINDS]
    return [Route("/studio/", serving("index.html")), *(Route(f"/studio/{name}", serving(name)) for name in names)]


def _overview(home: Home, shelf: Shelf, jobs: Jobs) -> list[BaseRoute]:
    def seen() -> Json:
        runs = home.runs()
        return {
            "name": home.root.name,
            "chosen": home.chosen,
            "runs": [
                {
                    "name": run.name,
                    "running": run.running,
                    "recipe": run.recipe,
                    "report": run.report,
                    "job": jobs.told(run.name),
                    "stages": [
                        {key: value for key, value in asdict(stage).items() if key != "directory"}
                        | {"xray": (stage.directory / XRAY).is_file()}
                        for stage in run.stages
                    ],
                }
                for run in runs
            ],
            "models": [
                {"name": m.name, "run": m.run, "kind": m.kind, "chats": m.chats, "step": m.step} for m in home.models()
            ],
            "open": shelf.opened(),
            "recipes": [{"file": file, "name": name_of(path)} for file, path in home.recipes().items()],
        }

    async def overview(_: Request) -> Response:
        return await _answered(seen)

    return [Route("/studio/api/home", overview)]


def _training(home: Home, jobs: Jobs) -> list[BaseRoute]:
    async def stage(request: Request) -> Response:
        place, mark = _asked(request, "place"), _asked(request, "mark")

        def seen() -> Json:
            directory = home.stage(place).directory
            return new_rows(directory, mark) | told(directory)

        return await _answered(seen)

    async def log(request: Request) -> Response:
        return await _answered(lambda: {"text": jobs.log(_asked(request, "run"))})

    async def start(request: Request) -> Response:
        body = await read_request(request, Start)

        def begin() -> Json:
            recipes = home.recipes()
            if body.recipe not in recipes:
                home.run(body.recipe)  # says that nothing of that name is here
            jobs.start(recipes[body.recipe], body.name, body.changes)
            return {"run": body.name}

        return await _answered(begin)

    async def stop(request: Request) -> Response:
        body = await read_request(request, Named)

        def end() -> Json:
            jobs.stop(body.run)
            return {"run": body.run}

        return await _answered(end)

    return [
        Route("/studio/api/stage", stage),
        Route("/studio/api/log", log),
        Route("/studio/api/start", start, methods=["POST"]),
        Route("/studio/api/stop", stop, methods=["POST"]),
    ]


def _chatting(shelf: Shelf) -> list[BaseRoute]:
    async def window(request: Request) -> Response:
        body = await read_request(request, Conversation)
        turns = [(turn.user, turn.answer) for turn in body.turns]

        def found() -> Json:
            served = shelf.get_model(body.model)
            return asdict(window_of(served, turns, body.user, system=body.system, max_tokens=body.max_tokens))

        return await _answered(found)

    return [Route("/studio/api/window", window, methods=["POST"])]


def _inside(shelf: Shelf) -> list[BaseRoute]:
    lookers: dict[str, Callable[[InsideRequest], Json]] = {
        "read": lambda body: looking.read_text(shelf.volume(body.model), body.text),
        "attention": lambda body: looking.attention(shelf.volume(body.model), body.text, body.layer),
        "lens": lambda body: looking.lens(shelf.volume(body.model), body.text),
        "neighbours": lambda body: looking.similar(shelf.volume(body.model), body.token),
        "anatomy": lambda body: looking.anatomy(shelf.volume(body.model)),
    }

    def looking_with(look: Callable[[InsideRequest], Json]) -> Handler:
        async def answer(request: Request) -> Response:
            body = await read_request(request, InsideRequest)
            return await _answered(lambda: look(body))

        return answer

    return [Route(f"/studio/api/inside/{name}", looking_with(look), methods=["POST"]) for name, look in lookers.items()]


def _data(home: Home) -> list[BaseRoute]:
    async def search(request: Request) -> Response:
        place, text = _asked(request, "place"), _asked(request, "text")

        def found() -> Json:
            corpus, until = home.stage(place).directory, time.monotonic() + _SEARCH_SECONDS
            matches = []
            for match in occurrences(corpus, text, ignore_case=True) if text else ():
                matches.append(asdict(match))
                if len(matches) > _MOST_FOUND or time.monotonic() > until:
                    break
            return {"matches": matches[:_MOST_FOUND], "more": len(matches) > _MOST_FOUND}

        return await _answered(found)

    async def fates(request: Request) -> Response:
        place, named = _asked(request, "place"), _asked(request, "text")

        def found() -> Json:
            fates = list(islice(find_documents(home.stage(place).directory, named), _MOST_FOUND + 1)) if named else []
            told = [asdict(fate) | {"is_kept": hasattr(fate, "shard")} for fate in fates[:_MOST_FOUND]]
            return {"fates": told, "more": len(fates) > _MOST_FOUND}

        return await _answered(found)

    async def page(request: Request) -> Response:
        kind, place = request.path_params["kind"], request.path_params["place"]
        try:
            content, policy = await asyncio.to_thread(framed, home, kind, place)
        except GroundupError as error:
            raise refused(error) from error
        return Response(content, media_type="text/html", headers={"Content-Security-Policy": policy})

    return [
        Route("/studio/api/search", search),
        Route("/studio/api/fates", fates),
        Route("/studio/page/{kind}/{place:path}", page),
    ]


def _asked(request: Request, name: str) -> str:
    return request.query_params.get(name, "")[:_TEXT_CHARACTERS]


async def _answered(work: Callable[[], Json]) -> Response:
    """The result of work that takes its time, done beside the loop that serves everybody."""
    try:
        return JSONResponse(await asyncio.to_thread(work))
    except GroundupError as error:
        raise refused(error) from error
