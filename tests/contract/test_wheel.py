"""The wheel contains only the package, its license and its entry point."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel in the same way as pip, with the build backend from the user's package index."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index did not answer in time")
    if done.returncode != 0 and ("No matching distribution" in done.stderr or "Connection" in done.stderr):
        pytest.skip("the build backend cannot be downloaded, because no package index can be reached")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_contains_exactly_the_package(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert names == {path.relative_to(ROOT / "src").as_posix() for path in files}


def test_wheel_has_license_and_command(wheel: zipfile.ZipFile) -> None:
    extra = {name.split(".dist-info/")[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "licenses/LICENSE" in extra
    assert "groundup = groundup.__main__:start" in wheel.read(extra["entry_points.txt"]).decode()
    metadata = wheel.read(extra["METADATA"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    # If a dependency existed only on one package index, users of other indexes could not install the package.
    assert not [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "+" in line]


@pytest.mark.parametrize(("arguments", "said"), [(["--version"], "groundup "), (["run", "--list"], "quickstart ")])
def test_package_of_the_wheel_runs(wheel: zipfile.ZipFile, tmp_path: Path, arguments: list[str], said: str) -> None:
    """The command runs from the files of the wheel and not from the repository. A past wheel lacked the recipes."""
    wheel.extractall(tmp_path)
    code = f"import groundup; from groundup.cli import main; print(groundup.__file__); main({arguments})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "."},
    )
    location, *lines = done.stdout.splitlines()
    assert Path(location).resolve().is_relative_to(tmp_path.resolve())
    assert [line for line in lines if line.startswith(said)]
