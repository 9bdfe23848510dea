"""The compilation of grammars does not delay other requests, and stops if the client disconnects."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

SLOW = {"type": "integer", "multipleOf": 999_961}  # one second of CPU time, then refused


def test_other_requests_are_answered_during_slow_compilations(server: Any) -> None:
    """Four clients send a grammar that compiles for a second. On a busy machine, the last ones are refused earlier."""
    ask = {"model": "tiny", "prompt": "x", "max_tokens": 50, "temperature": 0}
    statuses: list[int] = []

    def send() -> None:
        with server.http() as http:
            statuses.append(http.post("/v1/completions", json=ask | {"guided_json": SLOW}).status_code)

    clients = [threading.Thread(target=send) for _ in range(4)]
    for client in clients:
        client.start()
    with server.http() as http:
        for _ in range(3):
            started = time.monotonic()
            assert http.post("/v1/completions", json=ask | {"max_tokens": 2}).status_code == 200
            assert http.get("/health").status_code == 200
            assert time.monotonic() - started < 3
    assert not statuses, "the compilations ended too soon to delay anything"
    for client in clients:
        client.join()
    assert len(statuses) == 4
    assert set(statuses) <= {400, 429}


def test_a_disconnect_stops_the_compilation(server: Any) -> None:
    """Without this, each of the eight clients would use a second."""
    body = json.dumps({"model": "tiny", "prompt": "x", "guided_json": SLOW}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    port = int(server.url.rsplit(":", 1)[1])
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(0.05)
    with server.http() as http:
        started = time.monotonic()
        answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "x", "guided_regex": "[a-c]{3}"})
        assert answer.status_code == 200
    assert time.monotonic() - started < 6
