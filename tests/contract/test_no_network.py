"""No telemetry: if all input is local text, the complete pipeline does not open a network connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python imports `sitecustomize` at startup, also in worker processes. The hook blocks connections of all libraries. It
# writes each attempt to a file, because a library might catch the error.
BLOCK_NETWORK = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        if isinstance(address, (str, bytes)) and event in ("socket.connect", "socket.sendto"):
            return  # a Unix socket between processes
        with open(os.environ["BLOCK_NETWORK_LOG"], "a") as log:
            log.write(f"{event} {arguments[1:] if event == 'socket.connect' else arguments} {sys.argv}\\n")
        raise OSError("the network is blocked by this test")

sys.addaudithook(watch)
"""


@pytest.fixture
def blocked(tmp_path: Path) -> dict[str, str]:
    """Return environment variables that make Python record and block network connections."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(BLOCK_NETWORK)
    log = tmp_path / "attempts.log"
    log.touch()
    return os.environ | {"PYTHONPATH": str(tmp_path / "hook"), "BLOCK_NETWORK_LOG": str(log)}


def test_connections_are_blocked_and_recorded(blocked: dict[str, str]) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    assert subprocess.run([sys.executable, "-c", code], env=blocked, capture_output=True).returncode != 0
    assert "127.0.0.1" in Path(blocked["BLOCK_NETWORK_LOG"]).read_text()


def test_a_run_on_a_folder_opens_no_connection(
    blocked: dict[str, str], tmp_path: Path, real_documents: list[str]
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for number, text in enumerate(real_documents):
        (notes / f"{number:03}.txt").write_text(text, encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""
name = "small"
[collect]
sources = [{{kind = "folder", path = {json.dumps(str(notes))}}}]
[tokenize]
vocab_size = 512
[pretrain]
tokens = 8192
compile = false
[pretrain.shape]
dim = 32
n_layers = 2
n_heads = 1
context_length = 64
[evaluate]
samples = 1
max_bytes = 4000
max_compressor_bytes = 20000
"""
    )
    command = [
        sys.executable,
        "-m",
        "groundup",
        "run",
        str(recipe),
        "--runs",
        str(tmp_path / "runs"),
        "--json",
    ]
    done = subprocess.run(command, env=blocked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["artifacts"]) == ["collect", "tokenize", "pretrain", "evaluate"]
    generate = [
        sys.executable,
        "-m",
        "groundup",
        "generate",
        str(tmp_path / "runs/small"),
        "The",
        "--max-tokens",
        "5",
    ]
    done = subprocess.run(generate, env=blocked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert Path(blocked["BLOCK_NETWORK_LOG"]).read_text() == ""
