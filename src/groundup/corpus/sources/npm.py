"""Download archives of npm packages with the installed npm and its settings, without running package scripts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from groundup.core.console import Console
from groundup.core.errors import DownloadError
from groundup.core.files import expand_home, require_disk_space
from groundup.corpus.download import Digest, copy_verified, download
from groundup.corpus.fetching.network import Network


def fetch_npm_archive(name: str, version: str, digest: Digest | None, directory: Path, console: Console) -> Path:
    """Download the archive of a release into `directory` and verify its integrity value.

    Args:
        name: Name of the package.
        version: Exact version.
        digest: Pinned digest, or None to raise an error that shows the digest to pin.
        directory: Target directory.
        console: Output for progress.

    Returns:
        The path of the archive.

    Raises:
        DownloadError: The release does not exist, is not pinned or is unreachable, or the archive has a wrong digest.
    """
    npm = shutil.which("npm")
    facts = _view(npm, name, version) if npm else _query_registry(name, version)
    if digest is None:
        raise DownloadError(
            f"{name} {version}: no hash in the recipe",
            fix=f'Pin the archive: add this line to the source: hash = "{facts.get("integrity", "")}".',
        )
    target = directory / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-')}-{version}.tgz"
    if npm is None:
        download(Network(), facts["tarball"], target, digest, console)
        return target
    require_disk_space(directory, int(facts.get("unpackedSize") or 0), f"downloading {name}")
    console.note(f"downloading {name} {version} with npm")
    with tempfile.TemporaryDirectory() as folder:
        _npm(npm, "pack", f"{name}@{version}", "--ignore-scripts", "--silent", "--pack-destination", folder)
        packed = next(Path(folder).glob("*.tgz"))
        if not copy_verified(packed, target, digest):
            raise DownloadError(
                f"{name} {version}: hash is {Digest(digest.algorithm, digest.of(packed))}",
                rule=f"the recipe pins {digest}",
                fix="Do not use this archive. Check the hash in the recipe, or ask the operator of the registry.",
            )
    return target


def _npm(npm: str, *arguments: str) -> str:
    done = subprocess.run([npm, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DownloadError(
            f"npm {arguments[0]} {arguments[1]}: {_npm_message(done.stderr or done.stdout)}",
            fix="Check name and version (npm view NAME versions), the network and the npm settings.",
        )
    return done.stdout


def _npm_message(output: str) -> str:
    """Return the first line of the error output of npm without error codes."""
    lines = [re.sub(r"^npm (error|ERR!) ?(\d{3}\b)?", "", line).strip() for line in output.splitlines()]
    return next((line for line in lines if line and not line.startswith("code ")), "npm failed without a message")


def _view(npm: str, name: str, version: str) -> dict[str, Any]:
    found = json.loads(_npm(npm, "view", f"{name}@{version}", "dist", "--json") or "{}")
    if not isinstance(found, dict) or not found:
        raise DownloadError(
            f"{name} {version}: not found in the registry",
            fix="Check name and version (npm view NAME versions).",
        )
    return found


def _query_registry(name: str, version: str) -> dict[str, Any]:
    """Query the registry that the npm settings name. This function is used if npm is not installed."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or _npmrc_registry()
    if not registry:
        raise DownloadError(
            f"{name} {version}: npm not found",
            fix="Install npm, or set NPM_CONFIG_REGISTRY to the URL of your registry.",
        )
    try:
        _, text = Network().page(f"{registry.rstrip('/')}/{name.replace('/', '%2f')}/{version}", "application/json")
        facts: dict[str, Any] = json.loads(text)["dist"]
        return facts
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DownloadError(
            f"{name} {version}: {error}",
            fix="Check the name, the version and the network.",
        ) from error


def _npmrc_registry() -> str:
    settings = expand_home(Path("~/.npmrc"))
    text = settings.read_text(encoding="utf-8") if settings.is_file() else ""
    match = re.search(r"^\s*registry\s*=\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else ""
