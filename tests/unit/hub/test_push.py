"""`groundup push` against a local server with the interface of the Hugging Face Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Hub:
    """The requests that the server has received: the bodies by path, and the files of the last commit."""

    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.tokens.add(self.headers.get("Authorization", ""))
            if self.headers.get("Authorization") != "Bearer secret":
                self._send({"error": "Invalid username or password."}, 401)
            elif self.path == "/api/repos/create":
                state.created.append(json.loads(body))
                self._send({"url": f"{state.url}/org/notes", "name": "org/notes"})
            elif self.path == "/api/validate-yaml":
                self._send({"errors": [], "warnings": []})
            elif self.path.startswith("/api/models/org/notes/preupload/"):
                names = [each["path"] for each in json.loads(body)["files"]]
                mode = {True: "lfs", False: "regular"}
                self._send(
                    {
                        "files": [
                            {"path": n, "uploadMode": mode[n.endswith(".safetensors")], "shouldIgnore": False}
                            for n in names
                        ]
                    }
                )
            elif self.path == "/org/notes.git/info/lfs/objects/batch":
                wanted = json.loads(body)["objects"]
                actions = {each["oid"]: {"upload": {"href": f"{state.url}/lfs/{each['oid']}"}} for each in wanted}
                self._send(
                    {
                        "transfer": "basic",
                        "objects": [each | {"actions": actions[each["oid"]]} for each in wanted],
                    }
                )
            elif self.path.startswith("/api/models/org/notes/commit/"):
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        state.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                    elif entry["key"] == "lfsFile":
                        state.files[entry["value"]["path"]] = state.objects[entry["value"]["oid"]]
                self._send({"commitUrl": f"{state.url}/org/notes/commit/1", "commitOid": "1", "pullRequestUrl": None})
            else:
                self._send({"error": f"unexpected {self.path}"}, 404)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            state.objects[hashlib.sha256(content).hexdigest()] = content
            self._send({})

        def _send(self, answer: dict[str, Any], status: int = 200) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def push(hub: Hub, model: Path, *options: str, token: str = "secret") -> subprocess.CompletedProcess[str]:
    # Xet, the storage of the Hub, has another protocol that a test cannot provide.
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "groundup", "push", str(model), "org/notes", *options]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)


def test_a_model_is_uploaded_with_its_card_and_without_paths_of_this_machine(
    hub: Hub, chat_directory: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in chat_directory.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    (model / "README.md").write_text('# notes-base\n\nfrom_pretrained("notes-base")\n')
    (model / "artifact.txt").write_text(str(tmp_path))
    done = push(hub, model)
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/org/notes/commit/1" in done.stdout
    assert hub.created[0].get("visibility") == "private" or hub.created[0]["private"]  # by version of the client
    # The local name does not exist on the Hub.
    assert hub.files["README.md"] == b'# notes-base\n\nfrom_pretrained("org/notes")\n'
    assert hub.files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= set(hub.files)
    assert "artifact.txt" not in hub.files


def test_errors_say_what_to_do(hub: Hub, chat_directory: Path) -> None:
    refused = push(hub, chat_directory, token="wrong")
    assert refused.returncode != 0 and "HF_TOKEN" in refused.stderr and "Traceback" not in refused.stderr
    command = [sys.executable, "-m", "groundup", "push", str(chat_directory), "notes"]
    unnamed = subprocess.run(command, capture_output=True, text=True)
    assert unnamed.returncode != 0 and "ORG/NAME" in unnamed.stderr
