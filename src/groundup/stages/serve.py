"""`groundup serve`: a model behind OpenAI's HTTP interface."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from groundup.config import Config, setting
from groundup.console import Console
from groundup.errors import ConfigError
from groundup.stages._chat_model import open_chat_model, print_now

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
    max_active: int = setting(8, help="requests that are generated at a time", gt=0)
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
        json_lines: give it one JSON object, once clients can connect: url, model, and chat (whether it can).

    Raises:
        DataError: no model there.
        ConfigError: a key is missing or cannot be sent in a header.
        ResourceError: the address is not free.
    """
    from groundup.checkpoint.resolve import finished
    from groundup.generate import Engine
    from groundup.serve import Guard, ServedModel, Server, bind, build_app, is_loopback, url_of

    console = console or Console()
    api_key = _usable(config.api_key or os.environ.get(API_KEY_VARIABLE) or None)
    with bind(config.host, config.port) as bound:
        loopback = is_loopback(bound)
        if not loopback and api_key is None:
            raise ConfigError(
                f"host = {config.host}",
                rule="others can reach this address, so the server needs an API key",
                fix=f"Set the environment variable {API_KEY_VARIABLE}, or leave --host out to serve this machine only.",
            )
        opened, template = open_chat_model(config.model, config.device, console)
        name = config.name or config.model.resolve().name
        with Engine(
            opened.model,
            opened.tokenizer,
            stop_ids=opened.stop_ids,
            max_active=config.max_active,
            max_waiting=config.max_waiting,
        ) as engine:
            created = int(finished(opened.directory))
            app = build_app(ServedModel(name, engine, template, created))

            def say_ready() -> None:
                url = url_of(bound)
                chats = template is not None
                console.note(f"{opened.directory} as {name!r} at {url}/v1" + ("" if chats else " (completions only)"))
                console.note("Ctrl-C ends it.")
                if json_lines:
                    on_text(json.dumps({"url": url, "model": name, "chat": chats}) + "\n")

            guard = Guard(app, api_key=api_key, loopback_only=loopback, note=console.note)
            Server(guard, grace_seconds=config.grace_seconds, cut_off=engine.close, on_ready=say_ready).run([bound])
    console.note("Stopped.")


def _usable(api_key: str | None) -> str | None:
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ConfigError(
            "the API key",
            rule="a key is made of visible ASCII characters, since it travels in a header",
            fix="Choose another, e.g. with: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    return api_key
