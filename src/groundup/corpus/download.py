"""Downloads that resume, are checked against their digest, and happen once."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from groundup.console import Console
from groundup.errors import DownloadError
from groundup.files import atomic_file, require_disk_space
from groundup.locks import locked

_ATTEMPTS = 4
_CHUNK = 1 << 18
_PAGE_LIMIT = 64 << 20
_SCHEMES = ("https", "http", "file")


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest that pins a file: `algorithm` as hashlib names it, `value` in lower-case hex."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `HEX` (sha256), `sha256:HEX`, or npm's integrity `sha512-BASE64`.

        Raises:
            ValueError: none of these.
        """
        text = text.strip()
        algorithm, dash, encoded = text.partition("-")
        if dash:
            value = base64.b64decode(encoded, validate=True).hex()
        else:
            before, _, value = text.rpartition(":")
            algorithm, value = before or "sha256", value.lower()
        lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
        if len(value) != lengths.get(algorithm) or set(value) - set("0123456789abcdef"):
            raise ValueError("a hash is 64 hex digits (sha256), or npm's integrity, sha512-...")
        return cls(algorithm, value)

    def __str__(self) -> str:
        """As a recipe writes it: hex digits of a sha256, npm's integrity of the longer ones."""
        if self.algorithm == "sha256":
            return self.value
        return f"{self.algorithm}-{base64.b64encode(bytes.fromhex(self.value)).decode()}"

    def of(self, path: Path) -> str:
        """The digest of a file, by the same algorithm."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest()

    def matches(self, path: Path) -> bool:
        """Whether the file is the one that was pinned."""
        return self.of(path) == self.value


@dataclass(frozen=True, slots=True)
class Network:
    """How to reach a package index: the settings of the user's own package client."""

    certificates: str | None = None
    client_certificate: str | None = None
    proxy: str | None = None
    unverified_hosts: frozenset[str] = frozenset()
    timeout: float = 60.0
    credentials: Mapping[str, str] = field(default_factory=dict)  # host -> "user:password"

    def open(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Open a URL of scheme https, http or file; other schemes raise `URLError`."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise urllib.error.URLError(f"unknown scheme {parts.scheme}")
        host = parts.hostname or ""
        request = urllib.request.Request(_without_login(url), headers=dict(headers))
        login = self.credentials.get(host) or _login(parts)
        if login:
            token = base64.b64encode(login.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")  # not to be told to another host
        context = ssl.create_default_context(cafile=self.certificates)
        if self.client_certificate:
            context.load_cert_chain(self.client_certificate)
        if host in self.unverified_hosts:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if self.proxy:
            handlers.append(urllib.request.ProxyHandler({"http": self.proxy, "https": self.proxy}))
        opened: http.client.HTTPResponse = urllib.request.build_opener(*handlers).open(request, timeout=self.timeout)
        return opened

    def page(self, url: str, accept: str = "*/*") -> tuple[str, str]:
        """Fetch an index page: (content type, text)."""
        with self.open(url, {"Accept": accept}) as response:
            return response.headers.get("Content-Type") or "", response.read(_PAGE_LIMIT).decode("utf-8", "replace")


def _login(parts: urllib.parse.SplitResult) -> str | None:
    if parts.username is None:
        return None
    return f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"


def _without_login(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def download(network: Network, url: str, target: Path, digest: Digest, console: Console) -> None:
    """Fetch `url` to `target` unless a whole file is there, going on from what an earlier attempt left.

    Raises:
        DownloadError: out of reach after several attempts, or not the file that the digest pins.
        ResourceError: the disk is too full.
    """
    with locked(target.with_name(target.name + ".lock"), wait=True):
        if not target.exists():  # else another process had it meanwhile
            _download(network, url, target, digest, console)


def _download(network: Network, url: str, target: Path, digest: Digest, console: Console) -> None:
    partial = target.with_name(target.name + ".part")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch(network, url, partial, target.name, console)
            break
        except (OSError, http.client.HTTPException) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410)
            if attempt == _ATTEMPTS or final:
                raise DownloadError(
                    f"{target.name}: {error}",
                    rule="the package index must be reachable to fetch an archive for the first time",
                    fix="Check the network and the settings of pip or npm, then run this again: it goes on.",
                ) from error
            time.sleep(0.5 * 2**attempt)
    found = digest.of(partial)
    if found != digest.value:
        partial.unlink()
        raise DownloadError(
            f"{target.name}: its hash is {Digest(digest.algorithm, found)}",
            rule=f"the recipe pins {digest}",
            fix="Do not use this archive; check the hash in the recipe, or ask who runs the package index.",
        )
    partial.replace(target)


def _fetch(network: Network, url: str, partial: Path, label: str, console: Console) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = network.open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing beyond what we have: the digest will tell whether it is all
            return
        raise
    with response:
        if getattr(response, "status", None) != 206:
            have = 0
        length = int(response.headers.get("Content-Length") or 0)
        require_disk_space(partial.parent, length, f"downloading {label}")
        with (
            partial.open("ab" if have else "wb") as file,
            console.progress(label, (have + length) if length else None, "B", done=have) as progress,
        ):
            got = 0
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                got += len(chunk)
                progress.advance(len(chunk))
        if got < length:
            raise http.client.IncompleteRead(b"", length - got)


def copy_verified(source: Path, target: Path, digest: Digest) -> bool:
    """Copy a file that is on this machine already, if it is the pinned one."""
    if not source.is_file() or not digest.matches(source):
        return False
    with atomic_file(target) as temporary:
        temporary.write_bytes(source.read_bytes())
    return True
