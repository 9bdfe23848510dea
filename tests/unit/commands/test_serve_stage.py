"""`groundup serve` runs as a process: the tests check output, access control and shutdown."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from groundup.commands.serve import API_KEY_VARIABLE, ServeConfig, run
from groundup.core.config import load
from groundup.core.errors import ConfigError, ResourceError

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
CALL = {"model": "tuned", "prompt": "The", "temperature": 0, "stream": True}


@pytest.mark.skipif(os.name == "nt", reason="requires POSIX signals")
def test_a_signal_ends_the_server_after_running_requests(chat_directory: Path, serving: Serving) -> None:
    """A restart of the server must not interrupt running streams."""
    with serving(chat_directory, name="tuned") as (process, url), httpx.Client(trust_env=False, timeout=30) as http:
        with http.stream("POST", f"{url}/v1/completions", json=CALL | {"max_tokens": 400}) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            *_, last = [line for line in lines if line]
        assert last == "data: [DONE]"
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert "as 'tuned' at http://127.0.0.1:" in err
        assert "Traceback" not in err
        with pytest.raises(httpx.ConnectError):
            http.get(f"{url}/health")


@pytest.mark.skipif(os.name == "nt", reason="requires POSIX signals")
def test_a_second_signal_aborts_running_requests(endless_directory: Path, serving: Serving) -> None:
    with (
        serving(endless_directory, name="tuned", grace_seconds=600) as (process, url),
        httpx.Client(trust_env=False, timeout=30) as http,
    ):
        with http.stream("POST", f"{url}/v1/completions", json=CALL | {"max_tokens": 30_000}) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            *_, last = [line for line in lines if line]
        assert "shutting down" in last
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in err


def test_a_key_allows_a_public_address(chat_directory: Path, serving: Serving) -> None:
    with (
        serving(chat_directory, "sesame", host="0.0.0.0") as (_, url),
        httpx.Client(trust_env=False, timeout=30) as http,
    ):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert http.get(f"{url}/v1/models").status_code == 401
        asked = http.get(f"{url}/v1/models", headers={"Authorization": "Bearer sesame", "Host": "models.example"})
        [model] = asked.json()["data"]
        assert (model["id"], model["has_chat_template"]) == ("chat", True)


def test_a_public_address_requires_a_key(chat_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    config = load(ServeConfig, {"models": [str(chat_directory)], "host": "0.0.0.0", "port": 0})
    with pytest.raises(ConfigError, match=API_KEY_VARIABLE):
        run(config)


@pytest.mark.parametrize("key", ["clé", "two words", "line\nend"])
def test_an_invalid_key_is_an_error_that_does_not_contain_it(chat_directory: Path, key: str) -> None:
    config = load(ServeConfig, {"models": [str(chat_directory)], "api_key": key, "port": 0})
    with pytest.raises(ConfigError, match="API key") as refused:
        run(config)
    assert key not in str(refused.value) and key not in repr(config)


def test_a_port_in_use_is_an_error_before_the_model_is_loaded(tmp_path: Path) -> None:
    """Loading the model can take minutes, so the port is checked first."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=str(port)):
            run(load(ServeConfig, {"models": [str(tmp_path / "none")], "port": port}))
