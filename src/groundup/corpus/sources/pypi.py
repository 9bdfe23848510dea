"""Download archives of Python packages with the settings of the installed pip.

pip itself runs the build script of a source archive even if it only downloads the archive. Therefore, this module only
reads the settings of pip (indexes, find-links, certificates, proxy, logins). The module itself queries the simple API
(PEP 503 HTML, PEP 691 JSON).
"""

from __future__ import annotations

import ast
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from groundup.core.console import Console
from groundup.core.errors import DownloadError
from groundup.corpus.download import Digest, copy_verified, download
from groundup.corpus.fetching.network import Network, netrc_logins

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_CONFIG_LINE = re.compile(r"^(?P<section>[\w:.-]+)\.(?P<key>[\w-]+)=(?P<value>'.*'|\".*\")$")
# Sections of the pip configuration in the order of increasing precedence.
_SECTIONS = ("global", "install", "download", ":env:")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that an index page lists. `sha256` is "" if the page does not contain the digest of the file."""

    filename: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PipSettings:
    """The settings of pip that are needed to find and download archives."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    network: Network


def _pip(*arguments: str) -> str:
    commands = [[sys.executable, "-m", "pip"]] + [[found] for name in ("pip3", "pip") if (found := shutil.which(name))]
    for command in commands:
        environment = os.environ | {"COLUMNS": "1000", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)
        if done.returncode == 0:
            return done.stdout
    return ""


def pip_settings() -> PipSettings:
    """Read the settings of pip.

    Raises:
        DownloadError: pip is not installed and PIP_INDEX_URL is not set.
    """
    values: dict[str, str] = {}
    lines = [match for line in _pip("config", "list").splitlines() if (match := _CONFIG_LINE.match(line))]
    for section in _SECTIONS:
        values |= {m["key"]: str(ast.literal_eval(m["value"])) for m in lines if m["section"] == section}
    for name, value in os.environ.items():  # environment variables also apply if pip is not installed
        if name.startswith("PIP_") and value:
            values.setdefault(name[4:].lower().replace("_", "-"), value)
    index = values.get("index-url") or values.get("pypi-url") or _default_index()
    offline = values.get("no-index", "").lower() in ("1", "true", "yes", "on")
    indexes = () if offline else (index, *values.get("extra-index-url", "").split())
    if not any(indexes) and not values.get("find-links"):
        raise DownloadError(
            "pip: not found",
            fix="Install pip (python -m ensurepip), or set PIP_INDEX_URL to the URL of a package index.",
        )
    network = Network(
        certificates=values.get("cert"),
        client_certificate=values.get("client-cert"),
        proxy=values.get("proxy"),
        unverified_hosts=frozenset(host.split(":")[0] for host in values.get("trusted-host", "").split()),
        timeout=float(values.get("timeout") or values.get("default-timeout") or 60),
        credentials=netrc_logins(),
    )
    return PipSettings(tuple(filter(None, indexes)), tuple(values.get("find-links", "").split()), network)


def _default_index() -> str:
    """Return the default index URL of pip. Only the help text of pip shows this URL."""
    match = re.search(r"--index-url.*?\(default\s+(https?://[^\s)]+)\)", _pip("download", "--help"), re.DOTALL)
    return match[1] if match else ""


class _Links(HTMLParser):
    """Parser for the links on an index page in the format of PEP 503."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._href: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Store the target of a link."""
        if tag == "a":
            self._href = dict(attrs).get("href")

    def handle_data(self, data: str) -> None:
        """Store the text of a link, which is the file name."""
        if self._href and data.strip():
            self.found.append((data.strip(), self._href))
            self._href = None


def parse_page(content_type: str, text: str, base: str) -> list[Candidate]:
    """Return the files listed on a page of the simple API."""
    if "json" in content_type:
        files = json.loads(text).get("files", [])
        return [
            Candidate(f["filename"], urllib.parse.urljoin(base, f["url"]), f.get("hashes", {}).get("sha256", ""))
            for f in files
        ]
    parser = _Links()
    parser.feed(text)
    found = []
    for filename, href in parser.found:
        url, _, fragment = urllib.parse.urljoin(base, href).partition("#")
        found.append(Candidate(filename, url, fragment[7:] if fragment.startswith("sha256=") else ""))
    return found


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def is_release(filename: str, name: str, version: str) -> bool:
    """Return whether a file name is the name of an archive of this package and version."""
    return _version_in(filename, name) == version.lower()


def _version_in(filename: str, name: str) -> str:
    """Return the version in the name of an archive of the package `name`, or "" for other files.

    For the package `some-name` and the file `Some_Name-1.0-py3-none-any.whl`, the version is `1.0`.
    """
    stem = re.sub(r"\.(whl|egg|zip|tar\.gz|tgz|tar\.bz2|tar\.xz)$", "", filename)
    match = re.match("[-_.]+".join(map(re.escape, re.split(r"[-_.]+", name))) + r"-([^-]+)", stem, re.IGNORECASE)
    return match[1].lower() if match and stem != filename else ""


def newest_release(name: str, version: str | None = None) -> tuple[str, str]:
    """Return the newest final release of a package and the sha256 of its preferred archive.

    Args:
        name: Name of the package.
        version: A version to look up instead of the newest version.

    Returns:
        The version, and the sha256 of the archive in hex.

    Raises:
        DownloadError: The package or release was not found, or the index has no digests.
    """
    problems: list[str] = []
    offered = list(_candidates(pip_settings(), name, problems))
    found: dict[str, list[Candidate]] = {}
    for candidate in offered:
        found.setdefault(_version_in(candidate.filename, name), []).append(candidate)
    final = [v for v in found if re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", v)]
    chosen = (
        version.lower() if version else max(final, key=lambda v: [int(n) for n in re.findall(r"\d+", v)], default="")
    )
    digests = [candidate.sha256 for candidate in _ranked(found.get(chosen, [])) if candidate.sha256]
    if not digests or not chosen:
        seen = ", ".join(sorted(filter(None, found))[:12])
        raise DownloadError(
            f"{name} {version or ''}".strip() + f": not found on the package index{_because(problems)}",
            rule=f"available versions are {seen}" if seen else "",
            fix="Check name and version (pip index versions NAME) and the network.",
        )
    return chosen, digests[0]


def _because(problems: list[str]) -> str:
    return f" ({'; '.join(problems)})" if problems else ""


def _candidates(settings: PipSettings, name: str, problems: list[str]) -> Iterator[Candidate]:
    """Yield the files of a package, first from the find-links of pip, then from each package index."""
    for link in settings.find_links:
        local = urllib.request.url2pathname(link.removeprefix("file://")) if "://" not in link[5:] else link
        if Path(local).is_dir():
            yield from (Candidate(p.name, p.resolve().as_uri(), "") for p in sorted(Path(local).iterdir()))
    pages = [link for link in settings.find_links if link.startswith(("http:", "https:"))]
    pages += [index.rstrip("/") + f"/{_normalized(name)}/" for index in settings.indexes]
    for page in pages:
        try:
            yield from parse_page(*settings.network.page(page, _ACCEPT), base=page)
        except (OSError, ValueError, http.client.HTTPException) as error:
            host = urllib.parse.urlsplit(page).hostname
            problems.append(f"{host}: {getattr(error, 'reason', error)}")


def fetch_pypi_archive(name: str, version: str, digest: Digest | None, directory: Path, console: Console) -> Path:
    """Download the archive of a release into `directory` and verify its digest.

    Args:
        name: Name of the package.
        version: Exact version.
        digest: Pinned digest, or None to raise an error that lists the digests of the available archives.
        directory: Target directory.
        console: Output for progress.

    Returns:
        The path of the archive.

    Raises:
        DownloadError: The release or file does not exist, is not pinned, or is unreachable.
    """
    settings = pip_settings()
    problems: list[str] = []
    offered = [c for c in _candidates(settings, name, problems) if is_release(c.filename, name, version)]
    if not offered:
        raise DownloadError(
            f"{name} {version}: not found on the package index{_because(problems)}",
            fix="Check name and version (pip index versions NAME) and the network.",
        )
    listing = "; ".join(f'{c.filename} hash = "{c.sha256}"' for c in _ranked(offered)[:4])
    if digest is None:
        raise DownloadError(
            f"{name} {version}: no hash in the recipe",
            fix=f"Pin an archive: choose a file and add its hash to the source: {listing}.",
        )
    for candidate in [c for c in offered if c.sha256 in ("", digest.value)]:
        target = directory / candidate.filename
        if candidate.url.startswith("file:"):
            local = Path(urllib.request.url2pathname(urllib.parse.urlsplit(candidate.url).path))
            if copy_verified(local, target, digest):
                return target
        else:
            download(settings.network, candidate.url, target, digest, console)
            return target
    raise DownloadError(
        f"{name} {version}: no file with sha256 {digest.value}",
        fix=f"Check the hash in the recipe. The index has {listing}.",
    )


def _ranked(offered: list[Candidate]) -> list[Candidate]:
    """Sort archives by preference for a recipe: first pure-Python wheels, then source archives, then other wheels."""
    return sorted(offered, key=lambda c: (not c.filename.endswith("-any.whl"), c.filename.endswith((".whl", ".egg"))))
