"""The server handles disconnected clients, overload, failures of the model, and shutdown."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import Any

import openai
import pytest
import torch

from groundup.core.errors import ResourceError
from groundup.inference import Engine, GenerationRequest
from groundup.model import Transformer
from groundup.serve import ServedModel, ServedModels, ServerLimits, bind, build_app, is_loopback
from groundup.tokenizer import Tokenizer

ENDLESS: dict[str, Any] = {"model": "tiny", "prompt": "The", "max_tokens": 32_000, "temperature": 0}
SHORT: dict[str, Any] = {"model": "tiny", "prompt": "The", "max_tokens": 3, "temperature": 0}


def test_a_disconnected_stream_frees_its_slot(start: Any, long_model: Transformer) -> None:
    """The engine processes one request at a time, and this request would take minutes."""
    server = start(long_model, max_active=1)
    stream = server.client().completions.create(**ENDLESS, stream=True)
    next(stream)
    stream.close()
    assert server.client(timeout=20).completions.create(**SHORT).usage.completion_tokens == 3


def test_a_disconnected_request_frees_its_slot(start: Any, long_model: Transformer) -> None:
    """The response is sent only at its end, so the server cannot detect the disconnect by a failed write."""
    server = start(long_model, max_active=1)
    with pytest.raises(openai.APITimeoutError):
        server.client(timeout=0.5).completions.create(**ENDLESS)
    assert server.client(timeout=20).completions.create(**SHORT).usage.completion_tokens == 3
    assert any(note.startswith("499 POST /v1/completions") for note in server.notes)


def test_overload_is_429(start: Any, long_model: Transformer) -> None:
    server = start(long_model, max_active=1, max_waiting=2)
    client = server.client()
    running = [client.completions.create(**ENDLESS, stream=True)]
    next(running[0])
    running.append(client.completions.create(**ENDLESS, stream=True))  # this request waits in the queue
    with pytest.raises(openai.RateLimitError) as refused:  # the queue has space for only one of the two choices
        client.completions.create(**SHORT, n=2)
    assert (refused.value.status_code, refused.value.code) == (429, "overloaded")
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
    patient = server.client(max_retries=5, timeout=20)  # OpenAI's client retries after a 429 error
    # The rejected request must not occupy space in the queue.
    running.append(patient.completions.create(**ENDLESS, stream=True))
    with pytest.raises(openai.RateLimitError):
        client.completions.create(**SHORT)
    for stream in running:
        stream.close()
    assert patient.completions.create(**SHORT).usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [True, False])
def test_a_timeout_is_408(start: Any, long_model: Transformer, stream: bool) -> None:
    server = start(long_model, limits=ServerLimits(request_seconds=0.5))
    client = server.client(max_retries=2)
    with pytest.raises(openai.APIError, match=r"did not finish within 0\.5 s"):
        list(client.completions.create(**ENDLESS, stream=stream))
    assert client.completions.create(**SHORT).usage.completion_tokens == 3
    if not stream:
        assert len([note for note in server.notes if note.startswith("408 ")]) == 1, "OpenAI's client must not retry"


def test_a_slow_reader_gets_the_complete_stream(server: Any) -> None:
    """The engine pauses a request when its event queue is full."""
    call = {"model": "tiny", "prompt": "The", "max_tokens": 500, "temperature": 0, "stream": True}
    client = server.client()
    slow = client.completions.create(**call)
    first = next(slow)
    quick = "".join(chunk.choices[0].text for chunk in client.completions.create(**call))
    assert first.choices[0].text + "".join(chunk.choices[0].text for chunk in slow) == quick


def test_a_client_that_stops_reading_is_cancelled(long_model: Transformer, tokenizer: Tokenizer) -> None:
    """The connection stays open, so the server can detect the problem only because the client reads nothing.

    The engine processes one request at a time, so this request blocks all others.
    """
    body = json.dumps(ENDLESS | {"stream": True}).encode()
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
    heard = b""

    async def ask(engine: Engine) -> None:
        app = build_app(ServedModels([ServedModel("tiny", engine, None, created=1)]))
        reads = asyncio.Event()
        incoming = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            return incoming.pop() if incoming else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            nonlocal heard
            heard += message.get("body", b"")
            if heard:
                await reads.wait()

        silent = asyncio.create_task(app(scope, receive, send))
        while not heard:
            await asyncio.sleep(0.01)
        other = GenerationRequest(prompt="The", max_tokens=2, stop_ids=())
        assert len([event async for event in engine.submit(other)]) == 2
        reads.set()
        await silent

    with Engine(long_model, tokenizer, max_active=1, read_timeout=0.3) as engine:
        asyncio.run(ask(engine))
    assert b'"code":"not_read"' in heard and b"[DONE]" not in heard


@pytest.fixture
def broken(tiny_model: Any, tokenizer: Tokenizer) -> Transformer:
    """Return a model that raises an error at its fifth token, like a device that is out of memory."""
    model: Transformer = tiny_model(tokenizer.vocab_size, context_length=512)
    calls = 0

    def fail(module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise RuntimeError("secret: out of memory at /opt/model")

    model.model.embed_tokens.register_forward_pre_hook(fail)
    return model


def test_a_failure_is_500_without_details(start: Any, broken: Transformer) -> None:
    server = start(broken)
    with server.http() as http:
        answer = http.post("/v1/completions", json=SHORT | {"max_tokens": 50})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert server.client().completions.create(**SHORT).usage.completion_tokens == 3, (
        "other requests must still be answered"
    )


def test_a_failure_in_a_stream_is_an_error_event(
    start: Any, broken: Transformer, caplog: pytest.LogCaptureFixture
) -> None:
    """The status 200 is already sent. Without an error event, the partial answer would look complete."""
    server = start(broken)
    call = SHORT | {"max_tokens": 50, "stream": True}
    with server.http() as http:
        text = http.post("/v1/completions", json=call).text
    assert '"error"' in text.strip().splitlines()[-1]
    assert "[DONE]" not in text and "secret" not in text
    assert "secret" in caplog.text, "the server's log must contain the cause"
    with pytest.raises(openai.APIError, match="internal server error"):
        list(server.client().completions.create(**call))


def test_prompts_and_answers_are_not_logged(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "uvicorn")
    caplog.set_level(logging.DEBUG, "groundup")
    with server.http() as http:
        http.post("/v1/completions", json=SHORT | {"prompt": "xylophone"})
        http.post("/v1/completions", json=SHORT | {"prompt": "xylophone", "n": -1})
        http.post("/v1/completions", json=SHORT | {"prompt": "xylophone " * 999})
    assert len(server.notes) >= 3
    assert "xylophone" not in "\n".join(server.notes) + caplog.text


def test_events_follow_the_sse_format(server: Any) -> None:
    """The format must be exact, because clients in other languages parse it."""
    with server.http() as http:
        answer = http.post("/v1/completions", json=SHORT | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last, end = answer.text.split("\n\n")
    assert all(event.startswith('data: {"id":"cmpl-') and "\n" not in event for event in events)
    assert (last, end) == ("data: [DONE]", "")


@pytest.mark.parametrize("stream", [True, False])
def test_shutdown_aborts_requests_with_an_error(start: Any, long_model: Transformer, stream: bool) -> None:
    """Requests are aborted after one second. The partial answer must not look like a complete answer."""
    server = start(long_model)
    begun = time.monotonic()
    threading.Timer(0.3, server.stop).start()
    with pytest.raises(openai.APIError, match="shutting down"):
        list(server.client().completions.create(**ENDLESS, stream=stream))
    assert 1.2 < time.monotonic() - begun < 20


def texts(lines: list[str]) -> list[str]:
    """Return the texts of the events of a stream."""
    return [json.loads(line[6:])["choices"][0]["text"] for line in lines if line.startswith("data: {")]


def test_accepted_requests_finish_during_a_shutdown(start: Any, long_model: Transformer) -> None:
    """The accepted stream is complete, and clients of new requests learn that another server must answer them."""
    server = start(long_model, grace_seconds=60)
    with server.http() as http:
        call = ENDLESS | {"stream": True, "max_tokens": 400, "seed": 1}
        alone = http.post("/v1/completions", json=call).text.splitlines()
        with http.stream("POST", "/v1/completions", json=call) as accepted:
            lines = accepted.iter_lines()
            first = next(lines)
            server.stop()
            while (health := http.get("/health")).json() != {"status": "draining"}:
                time.sleep(0.01)
            new = http.post("/v1/completions", json=SHORT)
            for refused in (health, new):
                assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
                assert refused.headers["connection"] == "close"
            assert new.json()["error"]["code"] == "shutting_down"
            streamed = [first, *lines]
    assert streamed[-2:] == alone[-2:] == ["data: [DONE]", ""]
    assert texts(streamed) == texts(alone)


def test_a_second_signal_aborts(start: Any, long_model: Transformer) -> None:
    server = start(long_model, grace_seconds=60)
    stream = server.client().completions.create(**ENDLESS, stream=True)
    next(stream)
    begun = time.monotonic()
    for delay in (0.1, 0.4):
        threading.Timer(delay, server.stop).start()
    with pytest.raises(openai.APIError, match="shutting down"):
        list(stream)
    assert time.monotonic() - begun < 20


def test_an_address_in_use_is_an_error() -> None:
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        host, port = bound.getsockname()
        with pytest.raises(ResourceError, match=f"{host}:{port}"):
            bind(host, port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1", "a..b", "a\0b"])
def test_an_invalid_address_is_an_error(host: str) -> None:
    with pytest.raises(ResourceError, match="address"):
        bind(host, 0)


@pytest.mark.parametrize(("host", "only_here"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_is_loopback(host: str, only_here: bool) -> None:
    with bind(host, 0) as bound:
        assert is_loopback(bound) is only_here
