"""Clients for `benchmarks.server_load`, in a process of their own so that their CPU time is known.

The clients use asyncio's sockets and parse HTTP themselves, because an HTTP library would cost more CPU time than the
server. Standard input contains the calls as a JSON object, and standard output the results.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GARBAGE = (
    b"\x00\xff" * 200,
    b"GET / HTTP/9.9\r\n\r\n",
    POST + b"Content-Length: 4\r\n\r\n{]{]",
    POST + b"Content-Length: 99\r\n\r\n{",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
)


@dataclass
class Answer:
    """The response to a call: the text is None if the response is incomplete."""

    status: int = 0
    text: str | None = None
    tokens: int = 0
    error: str = ""


async def ask(url: str, body: Json, *, leave_after: float | None = None) -> Answer:
    """Send a request on a new connection. With `leave_after`, disconnect after this number of seconds."""
    parts = urlsplit(url)
    answer = Answer()
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
    except OSError as error:
        return Answer(error=type(error).__name__)
    content = json.dumps(body).encode()
    try:
        writer.write(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        async with asyncio.timeout(leave_after):
            answer.status = int((await reader.readline()).split()[1])
            lines = await _lines(reader)
    except (OSError, IndexError, ValueError, asyncio.IncompleteReadError) as error:
        answer.error = type(error).__name__
        return answer
    finally:
        writer.close()
    _parse(answer, lines, stream=body.get("stream", False))
    return answer


async def _lines(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the lines of the body, which is either chunked or of known length."""
    chunked, length = False, 0
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.lower().partition(b":")
        chunked = chunked or (name == b"transfer-encoding" and b"chunked" in value)
        length = int(value) if name == b"content-length" else length
    if not chunked:
        return [await reader.readexactly(length)]
    pieces = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    return b"".join(pieces).split(b"\n")


def _parse(answer: Answer, lines: list[bytes], *, stream: bool) -> None:
    if answer.status != 200:
        return
    if not stream:
        found = json.loads(lines[0])
        answer.text, answer.tokens = found["choices"][0]["text"], found["usage"]["completion_tokens"]
        return
    text = ""
    for line in lines:
        if line == b"data: [DONE]":
            answer.text = text
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            if "error" in event:
                answer.error = event["error"]["code"]
            elif event["choices"]:
                text += event["choices"][0]["text"]
            elif event.get("usage"):
                answer.tokens = event["usage"]["completion_tokens"]


async def throughput(url: str, bodies: list[Json]) -> Json:
    """Send all requests at the same time; return tokens, wall time and CPU time of the clients."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    answers = await asyncio.gather(*(ask(url, body) for body in bodies))
    seconds = time.perf_counter() - started
    failed = [f"{each.status} {each.error}" for each in answers if each.text is None]
    tokens = sum(each.tokens for each in answers)
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": _cpu_seconds() - cpu, "failed": failed}


async def alone(url: str, bodies: list[Json]) -> list[str | None]:
    """Return the text of each request when nothing else runs."""
    return [(await ask(url, body)).text for body in bodies]


async def load(url: str, bodies: list[Json], texts: list[str], clients: int, seconds: float, seed: int) -> Json:
    """Send random requests, disconnects and garbage; compare each answer with the text of the request alone."""
    counts = dict.fromkeys(("answers", "lost", "truncated", "mixed", "refused", "left", "garbage", "server_errors"), 0)
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        numbers = random.Random(f"{seed} {number}")
        while time.monotonic() < end:
            kind, index = numbers.random(), numbers.randrange(len(bodies))
            body = bodies[index] | ({"stream": True} if numbers.random() < 0.5 else {})
            if kind < 0.1:
                await send_garbage(url, numbers.choice(GARBAGE))
                counts["garbage"] += 1
            elif kind < 0.2:
                await ask(url, body, leave_after=numbers.uniform(0.01, 2))
                counts["left"] += 1
            else:
                count(counts, await ask(url, body), texts[index])

    await asyncio.gather(*(client(number) for number in range(clients)))
    return counts


def count(counts: Json, answer: Answer, expected: str) -> None:
    """Count an answer by its result."""
    if answer.status in (429, 503):
        counts["refused"] += 1
    elif answer.status >= 500 or answer.error == "internal_error":
        counts["server_errors"] += 1
    elif answer.text is None:
        counts["lost"] += 1
    elif answer.text != expected:
        counts["truncated" if expected.startswith(answer.text) else "mixed"] += 1
    else:
        counts["answers"] += 1


async def send_garbage(url: str, content: bytes) -> None:
    """Send bytes that are not a valid request, and wait at most a second for the response."""
    parts = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(content)
        async with asyncio.timeout(1):
            await reader.read(1000)
        writer.close()
    except OSError:  # also TimeoutError
        pass


async def at_once(url: str, bodies: list[Json], texts: list[str]) -> Json:
    """Send all requests at the same time; return the number of responses by status or error, and of wrong texts."""
    answers = await asyncio.gather(*(ask(url, body) for body in bodies))
    statuses: dict[str, int] = {}
    for each in answers:
        key = str(each.status) if each.status else each.error
        statuses[key] = statuses.get(key, 0) + 1
    wrong = sum(each.status == 200 and each.text != text for each, text in zip(answers, texts, strict=True))
    return {"statuses": statuses, "wrong": wrong}


def health(url: str, seconds: float) -> Json:
    """Request /health every 0.2 s on new connections; return the latencies in milliseconds."""
    parts = urlsplit(url)
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            received = connection.recv(4096)
        times.append(1000 * (time.perf_counter() - started))
        assert b" 200 " in received.split(b"\r\n")[0], received
        time.sleep(0.2)
    times.sort()
    return {"median_ms": times[len(times) // 2], "p99_ms": times[int(0.99 * len(times))], "max_ms": times[-1]}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    given = json.load(sys.stdin)
    name, arguments = given["call"], given["arguments"]
    if name == "health":
        print(json.dumps(health(**arguments)))
    else:
        print(
            json.dumps(
                asyncio.run(
                    {"throughput": throughput, "alone": alone, "load": load, "at_once": at_once}[name](**arguments)
                )
            )
        )
