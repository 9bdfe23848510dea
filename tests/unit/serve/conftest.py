"""Fixtures that start a real server on a loopback port, and OpenAI's client for this server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from groundup.apps import Catalog
from groundup.apps.serving import ServedApps
from groundup.inference import Engine
from groundup.model import Transformer
from groundup.serve import (
    Limits,
    RequestGuard,
    ServedModel,
    ServedModels,
    Server,
    application_routes,
    bind,
    build_app,
    url_of,
)
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

# With random weights, greedy decoding repeats itself, so a request ends only when it is cancelled.
LONG_CONTEXT = 32_768


@dataclass(frozen=True)
class Running:
    """A running server, with its log and its engine."""

    url: str
    engine: Engine
    notes: list[str]
    stop: Callable[[], None]

    def client(self, **options: Any) -> openai.OpenAI:
        """Return OpenAI's client without retries and without proxies."""
        given = {"api_key": "none", "max_retries": 0, "timeout": 60} | options
        http = openai.DefaultHttpxClient(trust_env=False)
        return openai.OpenAI(base_url=f"{self.url}/v1", http_client=http, **given)

    def http(self, **options: Any) -> httpx.Client:
        """Return an HTTP client for the server."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=60, **options)


@contextmanager
def running(
    engine: Engine,
    template: ChatTemplate | None,
    *,
    api_key: str | None = None,
    loopback_only: bool = True,
    browser: bool = False,
    limits: Limits | None = None,
    grace_seconds: int = 1,
) -> Iterator[Running]:
    notes: list[str] = []
    ready = threading.Event()
    models = ServedModels([ServedModel("tiny", engine, template, created=1_700_000_000)])
    app = build_app(models, routes=application_routes(ServedApps(Catalog()), models), limits=limits)
    guard = RequestGuard(app, api_key=api_key, loopback_only=loopback_only, browser=browser, note=notes.append)
    with bind("127.0.0.1", 0) as bound:
        server = Server(guard, grace_seconds=grace_seconds, abort=engine.close, on_ready=ready.set, limits=limits)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        assert ready.wait(30)

        def stop() -> None:
            server.handle_exit(signal.SIGTERM, None)

        try:
            yield Running(url_of(bound), engine, notes, stop)
        finally:
            stop()
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(model: Transformer, tokenizer: Tokenizer, template: ChatTemplate) -> Iterator[Running]:
    """Start a server that serves a chat model."""
    with Engine(model, tokenizer) as engine, running(engine, template) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return server.client()


@pytest.fixture(scope="session")
def long_model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size, context_length=LONG_CONTEXT)


@pytest.fixture
def start(tokenizer: Tokenizer, template: ChatTemplate) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a server with the given options of the engine and the guard."""
    with ExitStack() as stack:

        def begin(
            model: Transformer, *, chat: bool = True, max_active: int = 8, max_waiting: int = 64, **guard: Any
        ) -> Running:
            engine = stack.enter_context(Engine(model, tokenizer, max_active=max_active, max_waiting=max_waiting))
            return stack.enter_context(running(engine, template if chat else None, **guard))

        yield begin
