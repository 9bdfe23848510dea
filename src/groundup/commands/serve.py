"""`groundup serve`: serve models with an HTTP API that is compatible with OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now
from groundup.core.types import InferenceDtype

if TYPE_CHECKING:
    from groundup.serve.metrics import Metrics
    from groundup.serve.models.cache import ModelCache

API_KEY_VARIABLE = "GROUNDUP_API_KEY"

EXAMPLE = "groundup serve runs/quickstart --port 8000"


class ServeConfig(Config):
    """Settings of `groundup serve`."""

    models: tuple[str, ...] = setting((), help="Model directory, GGUF file or run; or NAME=PATH", positional=True)
    models_dir: Path | None = setting(None, help="Folder of models, loaded at first use", flag=True)
    lazy: bool = setting(False, help="Load models at their first use", flag=True)
    model_bytes: int | None = setting(None, help="Memory of loaded models; default: 3/4 of all", flag=True, gt=0)
    max_models: int | None = setting(None, help="Maximum number of loaded models; default: no limit", gt=0)
    model_wait_seconds: float = setting(60, help="Maximum number of seconds that requests wait for a model", gt=0)
    host: str = setting("127.0.0.1", help="Address; a public one needs a key", flag=True)
    port: int = setting(8000, help="Port; 0 selects a free port", flag=True, ge=0, le=65535)
    api_key: str | None = setting(None, help=f"API key; {API_KEY_VARIABLE} is safer", flag=True, repr=False)
    name: str | None = setting(None, help="Name of a single model in the API", flag=True)
    adapter: tuple[str, ...] = setting((), help="LoRA adapter, as NAME=DIR", flag=True)
    index: tuple[str, ...] = setting((), help="Index to serve as a model, as NAME=DIR", flag=True)
    base: Path | None = setting(None, help="Base model of an adapter, if it was moved", flag=True)
    apps: Path | None = setting(None, help="Directory of your applications", flag=True)
    kv_cache_bytes: int = setting(2**30, help="Maximum memory of the KV cache of all models, in bytes", gt=0)
    max_active: int = setting(32, help="Maximum number of concurrent requests, over all models", gt=0)
    max_waiting: int = setting(512, help="Maximum number of queued requests; further requests get status 429", gt=0)
    cors_origin: tuple[str, ...] = setting((), help="Origin of web pages, * for all", flag=True)
    access_log: bool = setting(False, help="Print a line for each request, without texts", flag=True)
    request_seconds: float = setting(600, help="Maximum number of seconds per request, including the queue", gt=0)
    client_seconds: float = setting(30, help="Seconds that clients have to send headers, and then the body", gt=0)
    read_seconds: float = setting(60, help="Seconds after which clients that do not read are disconnected", gt=0)
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
    from groundup.serve import Server, ServerLimits, application_routes, bind, build_app, is_loopback, url_of
    from groundup.serve.documents import open_indexes
    from groundup.serve.http.guard import require_api_key
    from groundup.serve.http.middleware import with_middleware
    from groundup.serve.metrics import Metrics
    from groundup.serve.models.sources import summarize

    console = console or Console()
    apps = ServedApps(open_catalog(config.apps, console))
    limits = ServerLimits(**{name: getattr(config, name) for name in ServerLimits.__slots__})
    api_key = config.api_key or os.environ.get(API_KEY_VARIABLE) or None
    metrics = Metrics()
    with bind(config.host, config.port) as bound:
        local = is_loopback(bound)
        require_api_key(api_key, API_KEY_VARIABLE, config.host, loopback=local)
        with closing(_open_models(config, metrics, console)) as models:

            def report_ready() -> None:
                summary = summarize(models, url_of(bound), console)
                console.note("Press Ctrl-C to stop.")
                if json_lines:
                    on_text(json.dumps(summary) + "\n")

            indexes = open_indexes(config.index, [source.name for source in models.sources.all()], console)
            routes = [*application_routes(apps, models), metrics.route]
            app = build_app(models, routes=routes, limits=limits, indexes=indexes)
            protect = partial(with_middleware, api_key=api_key, loopback_only=local, cors_origins=config.cors_origin)
            guarded = protect(app, metrics, note=console.note if config.access_log else None)
            server = partial(Server, grace_seconds=config.grace_seconds, abort=models.close, limits=limits)
            server(guarded, on_ready=report_ready, note=console.note).run([bound])
    console.note("Stopped.")


def _open_models(config: ServeConfig, metrics: Metrics, console: Console) -> ModelCache:
    from groundup.inference.runner import make_pool
    from groundup.inference.worker import Worker
    from groundup.serve.models.cache import ModelCache, default_model_bytes
    from groundup.serve.models.sources import Opening, open_sources
    from groundup.serve.openai.errors import cannot_load

    opening = Opening(config.device, config.base, console)
    given, sources = open_sources(
        config.models, config.adapter, config.models_dir, opening, name=config.name, optional=bool(config.index)
    )
    worker, pool = Worker(config.max_active, config.max_waiting, observer=metrics), make_pool(config.kv_cache_bytes)
    metrics.watch(worker, pool)
    models = ModelCache(
        sources,
        worker,
        pool,
        dtype=config.dtype,
        max_models=config.max_models,
        max_bytes=config.model_bytes or default_model_bytes(config.device),
        wait_seconds=config.model_wait_seconds,
        explain=partial(cannot_load, warn=console.warn),
    )
    asyncio.run(models.load_all(() if config.lazy else given))
    return models
