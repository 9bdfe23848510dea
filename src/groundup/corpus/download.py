"""Download files. Downloads can be resumed, are verified with a digest, and are protected by a lock."""

from __future__ import annotations

import base64
import hashlib
import http.client
import urllib.error
from dataclasses import dataclass
from pathlib import Path

from groundup.core.console import Console
from groundup.core.errors import DownloadError
from groundup.core.files import atomic_file, require_disk_space
from groundup.core.locks import locked
from groundup.corpus.fetching.network import Network, retry

_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest of a pinned file: the hashlib name of the algorithm, and the value in lower-case hex."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse `HEX` (sha256), `sha256:HEX`, or npm's `sha512-BASE64`.

        Raises:
            ValueError: The text is not a digest in one of these forms.
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
            raise ValueError("a hash has 64 hex digits (sha256), or is an npm integrity value, sha512-...")
        return cls(algorithm, value)

    def __str__(self) -> str:
        """Format the digest for a recipe: in hex for sha256, otherwise as an npm integrity value."""
        if self.algorithm == "sha256":
            return self.value
        return f"{self.algorithm}-{base64.b64encode(bytes.fromhex(self.value)).decode()}"

    def of(self, path: Path) -> str:
        """Return the digest of a file in hex, computed with the same algorithm."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest()

    def matches(self, path: Path) -> bool:
        """Return whether a file has this digest."""
        return self.of(path) == self.value


def download(network: Network, url: str, target: Path, digest: Digest, console: Console) -> None:
    """Download `url` to `target`, unless `target` exists. A partial download is resumed.

    Args:
        network: HTTP client.
        url: URL of the file.
        target: Path to write.
        digest: Expected digest.
        console: Output for progress.

    Raises:
        DownloadError: The URL is unreachable after several attempts, or the file does not have the expected digest.
        ResourceError: The disk does not have enough space.
    """
    with locked(target.with_name(target.name + ".lock"), wait=True):
        if not target.exists():  # another process may have finished the download
            _download(network, url, target, digest, console)


def _download(network: Network, url: str, target: Path, digest: Digest, console: Console) -> None:
    partial = target.with_name(target.name + ".part")
    try:
        retry(lambda: _fetch(network, url, partial, target.name, console))
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{target.name}: {error}",
            fix="Check the network and the settings of pip or npm, then run the command again to resume.",
        ) from error
    found = digest.of(partial)
    if found != digest.value:
        partial.unlink()
        raise DownloadError(
            f"{target.name}: hash is {Digest(digest.algorithm, found)}",
            rule=f"the recipe pins {digest}",
            fix="Do not use this archive. Check the hash in the recipe, or ask the operator of the package index.",
        )
    partial.replace(target)


def _fetch(network: Network, url: str, partial: Path, label: str, console: Console) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = network.open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the server has no more bytes; the digest shows whether the file is complete
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
    """Copy a local file if the file has the pinned digest. Return whether the file was copied."""
    if not source.is_file() or not digest.matches(source):
        return False
    with atomic_file(target) as temporary:
        temporary.write_bytes(source.read_bytes())
    return True
