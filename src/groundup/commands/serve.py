"""`groundup serve`: models behind OpenAI's HTTP interface."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from groundup.commands._chat_model import open_chat_model, print_now, usable_template
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.files import expand_home

API_KEY_VARIABLE = "GROUNDUP_API_KEY"


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
    """Serve until SIGINT or SIGTERM; answers under way may finish.

    Args:
        on_text: takes the JSON.
        json_lines: give it one JSON object, once clients can connect: url, model, models (all names), and chat (whether
            the first can).

    Raises:
        DataError: no model there.
        ConfigError: a key is missing or cannot be sent in a header; two models of one name.
        FormatError: an adapter of another base.
        ResourceError: the address is not free.
    """
    from groundup.apps.served import ServedApps
    from groundup.commands._applications import open_catalogue
    from groundup.hub.resolve import finished, open_beside
    from groundup.inference import Engine
    from groundup.serve import (
        Guard,
        ServedModel,
        ServedModels,
        Server,
        application_routes,
        bind,
        build_app,
        is_loopback,
        url_of,
    )

    console = console or Console()
    applications = ServedApps(open_catalogue(config.apps, console))
    api_key = _usable(config.api_key or os.environ.get(API_KEY_VARIABLE) or None)
    with bind(config.host, config.port) as bound:
        loopback = is_loopback(bound)
        if not loopback and api_key is None:
            raise ConfigError(
                f"host = {config.host}",
                rule="others can reach this address, so the server needs an API key",
                fix=f"Set the environment variable {API_KEY_VARIABLE}, or leave --host out to serve this machine only.",
            )
        opened, template = open_chat_model(config.model, config.device, console, base=config.base)
        beside = [(name, open_beside(opened, path)) for name, path in map(_named, config.adapter)]
        with Engine(
            opened.model,
            opened.tokenizer,
            stop_ids=opened.stop_ids,
            max_active=config.max_active,
            max_waiting=config.max_waiting,
        ) as engine:
            served = [ServedModel(_name(config), engine, template, int(finished(opened.directory)))]
            for name, each in beside:
                own = engine.beside(each.model, each.tokenizer, stop_ids=each.stop_ids)
                template = usable_template(each, console)
                served.append(ServedModel(name, own, template, int(finished(each.directory))))
            models = ServedModels(served)

            def say_ready() -> None:
                url = url_of(bound)
                for model, directory in zip(models, [opened.directory, *(e.directory for _, e in beside)], strict=True):
                    completes = "" if model.template is not None else " (completions only)"
                    console.note(f"{directory} as {model.name!r} at {url}/v1{completes}")
                console.note("Ctrl-C ends it.")
                if json_lines:
                    names = {"model": served[0].name, "models": [model.name for model in models]}
                    on_text(json.dumps({"url": url, **names, "chat": served[0].template is not None}) + "\n")

            app = build_app(models, routes=application_routes(applications, models))
            guard = Guard(app, api_key=api_key, loopback_only=loopback, note=console.note)
            Server(guard, grace_seconds=config.grace_seconds, cut_off=engine.close, on_ready=say_ready).run([bound])
    console.note("Stopped.")


def _name(config: ServeConfig) -> str:
    return config.name or config.model.resolve().name


def _named(adapter: str) -> tuple[str, Path]:
    """The name and the directory that NAME=DIR gives; a directory alone has its own name."""
    name, given, path = adapter.partition("=")
    if not given or Path(adapter).is_dir():
        return expand_home(Path(adapter)).resolve().name, expand_home(Path(adapter))
    if not (name and path):
        raise ConfigError(
            f"adapter = {adapter}",
            rule="an adapter is given as its name in the API, an equals sign, and its directory",
            fix="For example: --adapter support=runs/support/chat.",
        )
    return name, expand_home(Path(path))


def _usable(api_key: str | None) -> str | None:
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ConfigError(
            "the API key",
            rule="a key is made of visible ASCII characters, since it travels in a header",
            fix="Choose another, e.g. with: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    return api_key
