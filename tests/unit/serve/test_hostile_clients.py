"""Slow, stalled and hostile clients are rejected in bounded time and memory, and other clients are still served."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from groundup.model import Transformer
from groundup.serve import ServerLimits

QUICK = ServerLimits(client_seconds=0.6, read_seconds=0.6, max_connections=4)
SHORT: dict[str, Any] = {"model": "tiny", "prompt": "The", "max_tokens": 3, "temperature": 0}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNK = b"%x\r\n%b\r\n" % (65_536, b" " * 65_536)


def connect(server: Any) -> socket.socket:
    url = urlsplit(server.url)
    return socket.create_connection((url.hostname, url.port), timeout=20)


def received_until_close(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionError:
        pass
    return received


def send_all(connection: socket.socket, pieces: Iterator[bytes], pause: float = 0.0) -> int:
    """Send pieces until the server closes the connection, and return the number of sent bytes."""
    sent = 0
    try:
        for piece in pieces:
            connection.sendall(piece)
            sent += len(piece)
            time.sleep(pause)
    except OSError:
        pass
    return sent


def is_served(server: Any) -> bool:
    with server.http() as http:
        return bool(http.post("/v1/completions", json=SHORT).status_code == 200)


@pytest.fixture
def quick(start: Any, model: Transformer) -> Any:
    return start(model, limits=QUICK)


def test_a_stalled_body_is_408(quick: Any) -> None:
    with connect(quick) as connection:
        connection.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"model"')
        answer = received_until_close(connection)
    assert answer.startswith(b"HTTP/1.1 408") and b'"code":"body_timeout"' in answer
    assert is_served(quick)


def test_a_body_without_end_is_408(quick: Any) -> None:
    """The client sends one byte at a time, so that a deadline per byte would never be exceeded."""
    with connect(quick) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        send_all(connection, itertools.repeat(b"1\r\n \r\n", 200), pause=0.05)
        assert received_until_close(connection).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("begun", [b"", HEAD + b"X-Slow: "], ids=["nothing", "headers"])
def test_slow_headers_are_dropped(quick: Any, begun: bytes) -> None:
    """Slowloris: the client sends headers one byte at a time and never ends them."""
    started = time.monotonic()
    with connect(quick) as connection:
        connection.sendall(begun)
        if begun:
            send_all(connection, itertools.repeat(b"x", 200), pause=0.05)
        received_until_close(connection)
    assert 0.5 < time.monotonic() - started < 8


def test_slow_headers_of_a_second_request_are_dropped(quick: Any) -> None:
    with connect(quick) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert send_all(connection, itertools.repeat(b"G", 200), pause=0.05) < 100


def test_idle_connections_do_not_block_others(quick: Any) -> None:
    """At the limit, the server closes the connection that is idle for the longest time."""
    connections = [connect(quick) for _ in range(QUICK.max_connections)]
    assert is_served(quick)
    for connection in connections:
        connection.close()


def test_too_many_busy_connections_are_429(start: Any, long_model: Transformer) -> None:
    server = start(long_model, limits=ServerLimits(max_connections=2))
    client = server.client()
    streams = [client.completions.create(**SHORT | {"max_tokens": 32_000}, stream=True) for _ in range(2)]
    for stream in streams:
        next(stream)
    with server.http() as http:
        assert http.get("/health").status_code == 429
    for stream in streams:
        stream.close()


def test_an_announced_large_body_is_413_before_it_is_sent(quick: Any) -> None:
    with connect(quick) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % 10**12)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
        assert send_all(connection, itertools.repeat(CHUNK, 2000)) < 100 * 2**20, "the rest is not read without limit"


def test_an_endless_body_is_not_read(start: Any, model: Transformer) -> None:
    """The path does not exist, so no endpoint reads the body."""
    server = start(model, limits=ServerLimits(client_seconds=60))
    with connect(server) as connection:
        connection.sendall(HEAD.replace(b"completions", b"nothing") + b"Transfer-Encoding: chunked\r\n\r\n")
        assert send_all(connection, itertools.repeat(CHUNK, 2000)) < 100 * 2**20


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "tiny", "prompt": "x", "seed": ' + b"9" * 1_000_000 + b"}",
        b'{"model": "tiny", "prompt": "x", "max_tokens": 1e999}',
        b'{"model": "tiny", "prompt": "x", "n": ' + b"9" * 4000 + b"}",
        b'{"model": "tiny", "prompt": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"model": "tiny", "prompt": "x", "other": ' + b'{"a":' * 500_000 + b"1" + b"}" * 500_000 + b"}",
        b'{"model": "tiny", "prompt": [' + b"1," * 1_500_000 + b"1]}",
        b'{"model": "tiny", "prompt": "x", ' + b'"a": 1, ' * 400_000 + b'"b": "\xff"}',
        b'{"model": "ti\\u0000ny", "prompt": "x"}',
        b'{"model": "../../etc/passwd", "prompt": "x"}',
        b'{"model": "' + b"../" * 100_000 + b'", "prompt": "x"}',
    ],
    ids=["digits", "infinite", "integer", "arrays", "objects", "ids", "keys", "nul", "traversal", "long-name"],
)
def test_hostile_json_is_rejected(server: Any, body: bytes) -> None:
    with server.http() as http:
        started = time.monotonic()
        answer = http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404)
    assert len(answer.content) < 2000 and time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "a\0b", "\udcff", "x" * 10_000])
def test_paths_are_not_model_names(server: Any, name: str) -> None:
    with server.http() as http:
        answer = http.get("/v1/models/" + quote(name, safe="", errors="surrogateescape"))
    assert answer.status_code == 404 and len(answer.content) < 2000
    assert "root:" not in answer.text


def test_special_tokens_of_a_user_are_text(server: Any, tokenizer: Any) -> None:
    """As a special token, the text would be one token, and a user could end the message of the system."""
    names = [tokenizer.token_bytes(each).decode() for each in sorted(tokenizer.special_ids)]
    with server.http() as http:
        for name in names:
            counts = []
            for content in ("a", f"a{name}{name}"):
                call = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 1}
                counts.append(
                    http.post(
                        "/v1/chat/completions", content=json.dumps(call), headers={"Content-Type": "application/json"}
                    ).json()["usage"]["prompt_tokens"]
                )
            assert counts[1] - counts[0] > 2, name


def test_a_client_that_does_not_read_is_disconnected(quick: Any) -> None:
    """The client sends requests but never reads the responses, so they fill the buffers of both sides."""
    call = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 2_000 + b"\r\n\r\n"
    with connect(quick) as connection:
        sent = send_all(connection, itertools.repeat(call, 20_000))
        assert 0 < sent < 20_000 * len(call)
    assert is_served(quick)
