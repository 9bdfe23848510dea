"""A web site on the loopback address that can simulate errors."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """The response for a path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # a wrong Content-Length
    drip: float = 0.0  # seconds between bytes


@dataclass
class Site:
    """Paths and their responses; a callable returns a new response for each request."""

    paths: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)  # bytes after which the next responses stop
    ranges: bool = True
    asked: list[tuple[float, str, str, dict[str, str]]] = field(default_factory=list)  # time, method, path, headers
    port: int = 0

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def gets(self, path: str) -> int:
        """Return the number of requests for a path."""
        return sum(method == "GET" and asked == path for _, method, asked, _ in self.asked)


@contextmanager
def site_running(site: Site) -> Iterator[Site]:
    """Serve the site while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_CONNECT(self) -> None:
            site.asked.append((time.monotonic(), self.command, self.path, dict(self.headers)))
            self.send_error(403)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            site.asked.append((time.monotonic(), self.command, self.path, dict(self.headers)))
            found = site.paths.get(self.path, Answer(status=404))
            answer = found() if callable(found) else found
            body, status = answer.body, answer.status
            asked = self.headers.get("Range") if site.ranges and status == 200 else None
            headers = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'} | answer.headers
            if asked:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last) + 1 if last else len(body), len(body))
                if start >= len(body):
                    return self.send_error(416)
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
                body, status = body[start:end], 206
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if answer.length is None else answer.length))
            self.end_headers()
            if self.command == "HEAD":
                return None
            if site.cut_after and len(body) > site.cut_after[0]:
                self.wfile.write(body[: site.cut_after.pop(0)])
                self.close_connection = True
                return None
            try:
                for piece in [bytes([b]) for b in body] if answer.drip else [body]:
                    self.wfile.write(piece)
                    if answer.drip:
                        time.sleep(answer.drip)
            except OSError:
                pass
            self.close_connection = answer.length is not None
            return None

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: Any) -> None:
            """Ignore closed connections, which some tests cause."""

    server = Server(("127.0.0.1", 0), Handler)
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
