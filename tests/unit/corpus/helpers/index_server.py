"""A package index on the loopback address that can simulate errors."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Index:
    """The content of the index, and the received requests."""

    files: dict[str, bytes] = field(default_factory=dict)  # file name -> content
    projects: dict[str, list[str]] = field(default_factory=dict)  # project -> file names
    as_json: bool = True
    cut_after: int = 0  # bytes after which the connection closes, once per download
    served: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, project: str, filename: str, content: bytes) -> str:
        """Publish a file and return its sha256."""
        self.files[filename] = content
        self.projects.setdefault(project, []).append(filename)
        return hashlib.sha256(content).hexdigest()

    def packument(self, name: str, version: str, filename: str) -> dict[str, Any]:
        """Return the npm metadata of a package."""
        content = self.files[filename]
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        dist = {
            "tarball": f"{self.url}/files/{filename}",
            "integrity": integrity,
            "shasum": hashlib.sha1(content).hexdigest(),
        }
        release = {"name": name, "version": version, "dist": dist}
        return {"name": name, "dist-tags": {"latest": version}, "versions": {version: release}}


@contextmanager
def serve(index: Index) -> Iterator[Index]:
    """Serve the index while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            index.served.append(self.path)
            _, *parts = self.path.split("?")[0].rstrip("/").split("/")
            if parts[0] == "simple" and parts[1] in index.projects:
                self._page(index.projects[parts[1]])
            elif parts[0] == "files" and parts[1] in index.files:
                self._file(index.files[parts[1]])
            elif parts[0] in index.projects:
                filename = index.projects[parts[0]][0]
                version = filename.removesuffix(".tgz").rpartition("-")[2]
                self._send(json.dumps(index.packument(parts[0], version, filename)).encode(), "application/json")
            else:
                self.send_error(404)

        def _page(self, names: list[str]) -> None:
            digests = {name: hashlib.sha256(index.files[name]).hexdigest() for name in names}
            if index.as_json:
                files = [
                    {"filename": n, "url": f"../../files/{n}", "hashes": {"sha256": d}} for n, d in digests.items()
                ]
                page = json.dumps({"meta": {"api-version": "1.0"}, "files": files}).encode()
                self._send(page, "application/vnd.pypi.simple.v1+json")
            else:
                links = "".join(f'<a href="../../files/{n}#sha256={d}">{n}</a><br>' for n, d in digests.items())
                self._send(f"<html><body>{links}</body></html>".encode(), "text/html")

        def _file(self, content: bytes) -> None:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if index.cut_after and not asked:
                self.wfile.write(content[: index.cut_after])
                self.close_connection = True
                return
            self.wfile.write(content[start:])

        def _send(self, page: bytes, content_type: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
