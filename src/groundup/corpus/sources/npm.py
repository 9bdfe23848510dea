"""Archives of npm packages, fetched by the user's own npm (registry, login, proxy); no script is run."""

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
    """Bring the archive of this release into `directory`, checked against the pinned integrity.

    Raises:
        DownloadError: no such release, no pinned hash (the message tells it), not reachable, or another file.
    """
    npm = shutil.which("npm")
    facts = _view(npm, name, version) if npm else _ask_registry(name, version)
    if digest is None:
        raise DownloadError(
            f"{name} {version}: no hash in the recipe",
            rule="an archive is pinned by its integrity value",
            fix=f'Add it to the source: hash = "{facts.get("integrity", "")}".',
        )
    target = directory / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-')}-{version}.tgz"
    if npm is None:
        download(Network(), facts["tarball"], target, digest, console)
        return target
    require_disk_space(directory, int(facts.get("unpackedSize") or 0), f"downloading {name}")
    console.note(f"npm fetches {name} {version}")
    with tempfile.TemporaryDirectory() as folder:
        _npm(npm, "pack", f"{name}@{version}", "--ignore-scripts", "--silent", "--pack-destination", folder)
        packed = next(Path(folder).glob("*.tgz"))
        if not copy_verified(packed, target, digest):
            raise DownloadError(
                f"{name} {version}: its hash is {Digest(digest.algorithm, digest.of(packed))}",
                rule=f"the recipe pins {digest}",
                fix="Do not use this archive; check the hash in the recipe, or ask who runs the registry.",
            )
    return target


def _npm(npm: str, *arguments: str) -> str:
    done = subprocess.run([npm, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DownloadError(
            f"npm {arguments[0]} {arguments[1]}: {_what_npm_says(done.stderr or done.stdout)}",
            rule="the release must be one that the user's npm can see",
            fix="Check name and version (npm view NAME versions), the network and npm's settings.",
        )
    return done.stdout


def _what_npm_says(output: str) -> str:
    """The first line that is meant for people; npm says a code before it."""
    lines = [re.sub(r"^npm (error|ERR!) ?(\d{3}\b)?", "", line).strip() for line in output.splitlines()]
    return next((line for line in lines if line and not line.startswith("code ")), "it failed and said nothing")


def _view(npm: str, name: str, version: str) -> dict[str, Any]:
    found = json.loads(_npm(npm, "view", f"{name}@{version}", "dist", "--json") or "{}")
    if not isinstance(found, dict) or not found:
        raise DownloadError(
            f"{name} {version}: not on the registry",
            rule="a package source names one release",
            fix="Check name and version (npm view NAME versions).",
        )
    return found


def _ask_registry(name: str, version: str) -> dict[str, Any]:
    """Without npm: ask the registry that npm's settings name."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or _npmrc_registry()
    if not registry:
        raise DownloadError(
            f"{name} {version}: npm not found",
            rule='a source with index = "npm" needs npm, or the address of a registry',
            fix="Install npm, or set NPM_CONFIG_REGISTRY to your registry.",
        )
    try:
        _, text = Network().page(f"{registry.rstrip('/')}/{name.replace('/', '%2f')}/{version}", "application/json")
        facts: dict[str, Any] = json.loads(text)["dist"]
        return facts
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DownloadError(
            f"{name} {version}: {error}",
            rule="the registry must know the release",
            fix="Check name, version and the network.",
        ) from error


def _npmrc_registry() -> str:
    settings = expand_home(Path("~/.npmrc"))
    text = settings.read_text(encoding="utf-8") if settings.is_file() else ""
    match = re.search(r"^\s*registry\s*=\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else ""
