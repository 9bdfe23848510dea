"""Passwords and tokens in URLs do not reach artifact.json, the recipe.toml of a run, or error messages."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.core import artifact
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DownloadError
from groundup.core.recipe import recipe_steps, save_recipe
from groundup.core.redact import redacted
from groundup.corpus.sources import RemoteSource

PASSWORD, TOKEN = "swordfish" + "-9", "q7H2k9" + "ZxV4"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"https://ann:{PASSWORD}@host.example/x", "https://REDACTED@host.example/x"),
        (f"https://ann:p@{PASSWORD}@host.example/x", "https://REDACTED@host.example/x"),
        (f"https://host.example/x?page=2&access_token={TOKEN}", "https://host.example/x?page=2&access_token=REDACTED"),
        (f"s3://bucket/x?X-Amz-Signature={TOKEN}&a=1", "s3://bucket/x?X-Amz-Signature=REDACTED&a=1"),
        (f"https://host.example/c?sv=2020&sig={TOKEN}%3D", "https://host.example/c?sv=2020&sig=REDACTED"),
        ("https://ann:${PW}@host.example/?sig=${SIG}", "https://ann:${PW}@host.example/?sig=${SIG}"),
        ("ssh://git@host.example/x and bob@mail.example", "ssh://git@host.example/x and bob@mail.example"),
    ],
)
def test_urls_are_stored_without_secrets(url: str, kept: str) -> None:
    assert redacted(f"see {url}, please") == f"see {kept}, please"


def test_an_error_does_not_show_the_password() -> None:
    error = DownloadError(f"https://a:{PASSWORD}@h.example/x: 404", rule="it must be there", fix="Check it.")
    assert PASSWORD not in f"{error} {error.value} {error.args}"


def _config(password: str) -> dict[str, object]:
    return {
        "sources": [{"urls": [f"https://a:{password}@h.example/x"], "options": {"key": password, "anon": False}}],
        "tokenizer": "bpe",
    }


def test_records_have_no_password_and_it_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    work = artifact.begin(tmp_path / "out", "collect", _config(PASSWORD), {})
    work.finish({"seen": f"https://a:{PASSWORD}@h.example/x"}, [])
    kept = (tmp_path / "out" / "artifact.json").read_text()
    assert PASSWORD not in kept and json.loads(kept)["config"]["tokenizer"] == "bpe"
    assert artifact.begin(tmp_path / "out", "collect", _config("rotated"), {}).state == "done"
    assert artifact.begin(tmp_path / "out", "collect", _config("${PW}"), {}).state == "done"


def test_a_run_stores_the_recipe_without_the_password(tmp_path: Path) -> None:
    from groundup.commands import STAGES

    recipe = {
        "collect": {
            "sources": [
                {"kind": "remote", "urls": [f"https://a:{PASSWORD}@h.example/x.txt"], "options": {"token": TOKEN}}
            ]
        }
    }
    steps = recipe_steps(recipe, tmp_path, "r.toml", STAGES)
    save_recipe(tmp_path / "recipe.toml", "r", steps)
    text = (tmp_path / "recipe.toml").read_text()
    assert PASSWORD not in text and TOKEN not in text and "${NAME}" in text
    again = recipe_steps(
        {"collect": tomllib.loads(text)["collect"]}, tmp_path, "recipe.toml", STAGES
    )  # the stored recipe is still valid
    assert steps[0].config.all_sources[0].identity() == again[0].config.all_sources[0].identity()
    with pytest.raises(ConfigError, match="environment variable"):
        again[0].config.all_sources[0].fetch(Console(quiet=True))


@pytest.fixture
def locked_site() -> Iterator[str]:
    """Start a web server that requires a password for its file, and yield the URL of the file."""
    import base64
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    wanted = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            good = self.headers.get("Authorization") == wanted
            self.send_response(200 if good else 401)
            self.send_header("Content-Length", "5" if good else "0")
            self.end_headers()
            if good and self.command == "GET":
                self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_password_comes_from_the_environment(
    locked_site: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    source = RemoteSource(urls=["http://ann:${SHOP_PASSWORD}@" + locked_site + "/a.txt"], allow_private_hosts=True)
    source.fetch(Console(quiet=True))
    assert PASSWORD not in source._list.read_text()
    ((_, opener),) = source.open_items(source.items())
    with opener() as stream:
        assert stream.read() == b"hello"
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(ConfigError, match="SHOP_PASSWORD"):
        list(source.open_items(source.items()))
