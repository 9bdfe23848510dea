"""`groundup studio` runs as a process: the tests check access control and shutdown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from groundup.commands.studio import PASSWORD_VARIABLE, StudioConfig, run
from groundup.core.config import load
from groundup.core.errors import ConfigError, DataError


def test_a_public_address_requires_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="password"):
        run(load(StudioConfig, {"directory": str(tmp_path), "host": "0.0.0.0", "port": 0}))


def test_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"model\.gguf"):
        run(load(StudioConfig, {"directory": str(tmp_path / "model.gguf")}))


@pytest.mark.parametrize(("host", "password"), [("127.0.0.1", None), ("0.0.0.0", "sesame")])
@pytest.mark.skipif(os.name == "nt", reason="Windows requires another way to send Ctrl-C")
def test_it_serves_authorized_clients_until_it_is_stopped(run_directory: Path, host: str, password: str | None) -> None:
    environment = os.environ | ({PASSWORD_VARIABLE: password} if password else {})
    command = [sys.executable, "-m", "groundup", "studio", str(run_directory), "--port", "0", "--host", host, "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"].replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(trust_env=False, timeout=60) as http:
            given = {"auth": ("me", password)} if password else {}
            assert "<title>Studio" in http.get(url, **given).text
            home = http.get(f"{url}api/overview", **given).json()
            assert [model["name"] for model in home["models"]] == [f"{run_directory.name}/base"]
            if password:
                assert http.get(url).status_code == 401
                assert http.get(f"{url}api/overview", auth=("me", "wrong")).status_code == 401
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Stopped." in said
