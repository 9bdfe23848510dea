"""`groundup serve`: models behind OpenAI's HTTP interface."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now

API_KEY_VARIABLE = "GROUNDUP_API_KEY"

EXAMPLE = "groundup serve runs/quickstart --port 8000"


class ServeConfig(Config):
    """What to serve, and to whom."""

    model: Path = setting(help="model directory, or a run (its newest language model)", positional=True)
    host: str = setting("127.0.0.1", help="address to listen on; beyond this machine a key is needed", flag=True)
    port: int = setting(8000, help="0 takes one that is free", flag=True, ge=0, le=65535)
    api_key: str | None = setting(
        None, help=f"what clients must send; better: the variable {API_KEY_VARIABLE}", flag=True, repr=False
    )
    name: str | None = setting(None, help="what clients call the model; default: its directory's name", flag=True)
    adapter: tuple[str, ...] = setting((), help="NAME=DIR, an adapter to serve from the same weights", flag=True)
    base: Path | None = setting(None, help="where an adapter's base lies now", flag=True)
    apps: Path | None = setting(None, help="folder with applications of your own, for /v1/apps", flag=True)
    max_active: int = setting(8, help="requests that are generated at a time, of all models together", gt=0)
    max_waiting: int = setting(64, help="requests that may wait for their turn; more get a 503", gt=0)
    grace_seconds: int = setting(10, help="how long answers may go on after Ctrl-C", ge=0)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)


def run(
    config: ServeConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM; answers in progress may finish.

    Args:
        on_text: called with the JSON.
        json_lines: print one JSON object as soon as clients can connect: url, model, models, and chat (the first can).

    Raises:
        DataError: no model there.
        ConfigError: a key is missing or cannot be sent in a header; two models of one name.
        FormatError: an adapter of another base.
        ResourceError: the address is not free.
    """
    from groundup.apps import open_catalog
    from groundup.apps.serving import ServedApps
    from groundup.hub.resolve import open_adapter, open_chat_model
    from groundup.inference import Engine
    from groundup.serve import RequestGuard, Server, application_routes, bind, build_app, is_loopback, url_of
    from groundup.serve.guard import require_api_key
    from groundup.serve.models import named_directory, serve_opened

    console = console or Console()
    applications = ServedApps(open_catalog(config.apps, console))
    api_key = config.api_key or os.environ.get(API_KEY_VARIABLE) or None
    with bind(config.host, config.port) as bound:
        loopback = is_loopback(bound)
        require_api_key(api_key, API_KEY_VARIABLE, config.host, loopback=loopback)
        opened, template = open_chat_model(config.model, config.device, console, base=config.base)
        adapters = [(name, open_adapter(opened, path)) for name, path in map(named_directory, config.adapter)]
        with Engine(
            opened.model,
            opened.tokenizer,
            stop_ids=opened.stop_ids,
            max_active=config.max_active,
            max_waiting=config.max_waiting,
        ) as engine:
            name = config.name or config.model.resolve().name
            models = serve_opened(engine, (name, opened, template), adapters, console)

            def report_ready() -> None:
                url = url_of(bound)
                directories = [opened.directory, *(each.directory for _, each in adapters)]
                for model, directory in zip(models, directories, strict=True):
                    completes = "" if model.template is not None else " (completions only)"
                    console.note(f"{directory} as {model.name!r} at {url}/v1{completes}")
                console.note("Ctrl-C ends it.")
                if json_lines:
                    names = {"model": name, "models": [model.name for model in models]}
                    on_text(json.dumps({"url": url, **names, "chat": template is not None}) + "\n")

            app = build_app(models, routes=application_routes(applications, models))
            guard = RequestGuard(app, api_key=api_key, loopback_only=loopback, note=console.note)
            Server(guard, grace_seconds=config.grace_seconds, abort=engine.close, on_ready=report_ready).run([bound])
    console.note("Stopped.")
