"""Fixtures that start a real server on a loopback port, and OpenAI's client for this server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from external_tokenizers import MAKERS, add_special_tokens, save
from groundup.apps import Catalog
from groundup.apps.serving import ServedApps
from groundup.core.console import Console
from groundup.inference import Engine
from groundup.inference.runner import make_pool
from groundup.inference.worker import Worker
from groundup.model import Transformer
from groundup.serve import (
    RequestGuard,
    ServedModel,
    ServedModels,
    Server,
    ServerLimits,
    application_routes,
    bind,
    build_app,
    url_of,
)
from groundup.serve.documents import open_indexes
from groundup.serve.http.cors import allow_origins
from groundup.serve.http.request_log import RequestLog
from groundup.serve.metrics import Metrics
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate
from tool_templates import DEVSTRAL, LLAMA31, MISTRAL_NEMO, QWEN25

Connect = Callable[[str], openai.OpenAI]

TOOL_MODELS = {  # tokenizer, chat template, and tokens that the tokenizer lacks
    "Qwen": ("qwen", QWEN25, ("</tool_call>",)),
    "Qwen without added tokens": ("smollm2", QWEN25, ()),
    "Llama": ("llama3", LLAMA31, ("<|python_tag|>", "<|eom_id|>")),
    "Mistral": ("mistral", MISTRAL_NEMO, ("[TOOL_CALLS]", "[TOOL_RESULTS]")),
    "Devstral": ("mistral", DEVSTRAL, ("[TOOL_CALLS]", "[ARGS]")),
}
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
    loopback_only: bool = True,
    limits: ServerLimits | None = None,
    grace_seconds: int = 1,
    cors_origins: tuple[str, ...] = (),
    metrics: Metrics | None = None,
    indexes: Sequence[str] = (),
    **options: Any,
) -> Iterator[Running]:
    notes: list[str] = []
    metrics = metrics or Metrics()
    ready = threading.Event()
    models = ServedModels([ServedModel("tiny", engine, template, created=1_700_000_000)])
    app = build_app(
        models,
        routes=[*application_routes(ServedApps(Catalog()), models), metrics.route],
        limits=limits,
        indexes=open_indexes(indexes, ["tiny"], Console(quiet=True)),
    )
    guard = RequestGuard(app, loopback_only=loopback_only, **{"api_key": None} | options)
    logged = RequestLog(allow_origins(guard, cors_origins), app.routes, note=notes.append, count=metrics.on_response)
    with bind("127.0.0.1", 0) as bound:
        server = Server(logged, grace_seconds=grace_seconds, abort=engine.close, on_ready=ready.set, limits=limits)
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
            metrics = Metrics()
            worker = Worker(max_active, max_waiting, observer=metrics)
            metrics.watch(worker, make_pool())
            engine = stack.enter_context(Engine(model, tokenizer, worker=worker))
            return stack.enter_context(running(engine, template if chat else None, metrics=metrics, **guard))

        yield begin


@pytest.fixture(scope="module")
def serve_tools(
    tmp_path_factory: pytest.TempPathFactory, real_documents: list[str], tiny_model: Callable[..., Transformer]
) -> Iterator[Connect]:
    """Return a function that starts a server for a model with random weights, and returns a client."""
    clients: dict[str, openai.OpenAI] = {}
    with ExitStack() as stack:

        def client(name: str) -> openai.OpenAI:
            if name not in clients:
                maker, template, added = TOOL_MODELS[name]
                made = add_special_tokens(MAKERS[maker](real_documents[:20]), added)
                tokenizer = Tokenizer.load(save(tmp_path_factory.mktemp("tools"), made, template))
                model = tiny_model(tokenizer.vocab_size, context_length=4096)
                engine = stack.enter_context(Engine(model, tokenizer))
                clients[name] = stack.enter_context(running(engine, ChatTemplate(tokenizer))).client()
            return clients[name]

        yield client


@pytest.fixture(scope="module")
def qwen(serve_tools: Connect) -> openai.OpenAI:
    return serve_tools("Qwen")
