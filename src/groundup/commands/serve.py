"""`groundup serve`: serve models with an HTTP API that is compatible with OpenAI's API."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now
from groundup.core.types import InferenceDtype

API_KEY_VARIABLE = "GROUNDUP_API_KEY"

EXAMPLE = "groundup serve runs/quickstart --port 8000"


class ServeConfig(Config):
    """Settings of `groundup serve`."""

    model: Path = setting(help="Model directory, or a run (its newest language model)", positional=True)
    host: str = setting("127.0.0.1", help="Address to listen on; a public address requires an API key", flag=True)
    port: int = setting(8000, help="Port to listen on; 0 selects a free port", flag=True, ge=0, le=65535)
    api_key: str | None = setting(
        None,
        help=f"API key that clients must send; the environment variable {API_KEY_VARIABLE} is safer",
        flag=True,
        repr=False,
    )
    name: str | None = setting(None, help="Name of the model in the API; default: its directory name", flag=True)
    adapter: tuple[str, ...] = setting((), help="Adapter of the same base model to serve, as NAME=DIR", flag=True)
    base: Path | None = setting(None, help="Base model of an adapter, if it was moved", flag=True)
    apps: Path | None = setting(None, help="Directory with your applications, for /v1/apps", flag=True)
    kv_cache_bytes: int = setting(2**30, help="Maximum memory of a model's KV cache, in bytes", gt=0)
    max_active: int = setting(32, help="Maximum number of concurrent requests, over all models", gt=0)
    max_waiting: int = setting(512, help="Maximum number of queued requests; further requests get status 429", gt=0)
    request_seconds: float = setting(600, help="Maximum number of seconds per request, including the queue", gt=0)
    client_seconds: float = setting(30, help="Seconds that clients have to send headers, and then the body", gt=0)
    max_connections: int = setting(512, help="Maximum number of open connections", gt=0)
    grace_seconds: int = setting(60, help="Number of seconds that running requests have to finish after Ctrl-C", ge=0)
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available", flag=True)
    dtype: InferenceDtype = setting("auto", help="Weight format; auto: bfloat16 if possible", flag=True)


def run(
    config: ServeConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> None:
    """Serve models until the process receives SIGINT or SIGTERM. Running requests may then finish.

    Args:
        config: Settings of the command.
        console: Console for messages.
        on_text: Function that is called with the JSON object.
        json_lines: Whether to print one JSON object when clients can connect.

    Raises:
        DataError: The directory does not contain a model.
        ConfigError: The API key or the name of a model is invalid.
        FormatError: An adapter was trained for another base model.
        ResourceError: The address is already in use.
    """
    from groundup.apps import open_catalog
    from groundup.apps.serving import ServedApps
    from groundup.hub.resolve import open_adapter, open_chat_model
    from groundup.inference import Engine, make_runner
    from groundup.inference.runner import make_pool
    from groundup.inference.worker import Worker
    from groundup.serve import Limits, RequestGuard, Server, application_routes, bind, build_app, is_loopback, url_of
    from groundup.serve.guard import require_api_key
    from groundup.serve.models import named_directory, serve_opened

    console = console or Console()
    apps = ServedApps(open_catalog(config.apps, console))
    with bind(config.host, config.port) as bound:
        loopback = is_loopback(bound)
        require_api_key(api_key := _api_key(config), API_KEY_VARIABLE, config.host, loopback=loopback)
        opened, template = open_chat_model(config.model, config.device, console, base=config.base)
        name = config.name or config.model.resolve().name
        adapters = [(each, open_adapter(opened, path)) for each, path in map(named_directory, config.adapter)]
        runner = make_runner(opened.model, config.dtype, pool=make_pool(config.kv_cache_bytes))
        with closing(Worker(config.max_active, config.max_waiting)) as worker:
            engine = Engine(opened.model, opened.tokenizer, runner=runner, stop_ids=opened.stop_ids, worker=worker)
            models = serve_opened(engine, (name, opened, template), adapters, console)
            directories = [opened.directory, *(each.directory for _, each in adapters)]

            def report_ready() -> None:
                for model, directory in zip(models, directories, strict=True):
                    completes = "" if model.template is not None else " (completions only)"
                    console.note(f"Serving {directory} as {model.name!r} at {url_of(bound)}/v1{completes}")
                console.note("Press Ctrl-C to stop.")
                if json_lines:
                    names = {"url": url_of(bound), "model": name, "models": [model.name for model in models]}
                    on_text(json.dumps(names | {"chat": template is not None}) + "\n")

            routes = application_routes(apps, models)
            limits = Limits(
                request_seconds=config.request_seconds,
                client_seconds=config.client_seconds,
                max_connections=config.max_connections,
            )
            app = build_app(models, routes=routes, limits=limits)
            guard = RequestGuard(app, api_key=api_key, loopback_only=loopback, note=console.note)
            server = Server(
                guard,
                grace_seconds=config.grace_seconds,
                abort=worker.close,
                on_ready=report_ready,
                limits=limits,
                note=console.note,
            )
            server.run([bound])
    console.note("Stopped.")


def _api_key(config: ServeConfig) -> str | None:
    return config.api_key or os.environ.get(API_KEY_VARIABLE) or None
