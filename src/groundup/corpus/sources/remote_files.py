"""Files elsewhere, read as streams: they go on after a broken line, and are noticed when they change meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, cast

from groundup.corpus.fetching.network import ATTEMPTS, Network, is_final, patiently, pause_after
from groundup.corpus.sources.base import Item
from groundup.corpus.streams import MEBIBYTE
from groundup.errors import ConfigError, DownloadError, GroundupError
from groundup.telemetry import disable_telemetry

UNKNOWN_SIZE = 1 << 30  # what a file is taken for whose server does not tell
_BLOCK = 4 * MEBIBYTE  # bytes that an object store is asked for at a time
_VERSION_KEYS = (
    "ETag", "etag", "blob_id", "oid", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created",
)  # fmt: skip
_INSTALLS = {"s3": "groundup[remote]", "s3a": "groundup[remote]", "hf": "groundup[hub]"}


@dataclass(frozen=True, slots=True)
class RemoteItem(Item):
    """A file elsewhere, with all that a worker process needs to open it.

    Attributes:
        url: where it is.
        version: ETag or time of change, as far as its store tells; "" if it does not.
        ranges: (first byte, length) of the parts that are read, one after another; none: the whole.
        sha1: in hex, checked while the whole is read; "" if not known.
    """

    url: str = ""
    version: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    sha1: str = ""


class ChangedError(OSError):
    """The file is not the one that was listed."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Lists and opens files at https, http, local paths, and whatever else fsspec knows."""

    network: Network
    options: Mapping[str, Any] = field(default_factory=dict)

    def find(self, url: str) -> list[RemoteItem]:
        """The files that an address means: one file; of object stores also patterns ("*") and folders.

        Raises:
            ConfigError: an unknown kind of address, or a library that is not installed.
            DownloadError: nothing there, or out of reach.
        """
        find = self._find_http if url.startswith(("http://", "https://")) else self._find_elsewhere
        try:
            found = patiently(lambda: find(url))
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(url, error) from error
        if not found:
            raise DownloadError(f"{url}: no files", rule="an address leads to one file at least", fix="Check it.")
        return found

    def open(self, item: RemoteItem) -> BinaryIO:
        """A stream of the item's bytes: buffered, and seekable unless it is made of ranges.

        What cannot be read after several attempts, or has changed since it was listed, raises `DownloadError`.
        """
        if item.ranges:
            return io.BufferedReader(_Joined(self._part(item, start, size) for start, size in item.ranges), MEBIBYTE)
        return io.BufferedReader(self._part(item, 0, None), MEBIBYTE)

    def _part(self, item: RemoteItem, start: int, size: int | None) -> RemoteStream:
        web = item.url.startswith(("http://", "https://"))
        reopen = partial(self._open_http if web else self._open_elsewhere, item, start, size)
        known = size if size is not None else item.size if item.size != UNKNOWN_SIZE else None
        return RemoteStream(reopen, item.url, known, item.sha1)

    def _find_http(self, url: str) -> list[RemoteItem]:
        try:
            response = self.network.open(url, _PLAIN, method="HEAD")
        except urllib.error.HTTPError as error:
            if error.code not in (403, 405, 501):  # a signed address, or a server that knows no HEAD
                raise
            response = self.network.open(url, _PLAIN | {"Range": "bytes=0-0"})
        with response:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            length = total or (response.headers.get("Content-Length") or "")
            version = _version(response)
        path = url.partition("?")[0].rpartition("/")[2] or url
        return [RemoteItem(path, int(length) if length.isdigit() else UNKNOWN_SIZE, url=url, version=version)]

    def _open_http(self, item: RemoteItem, start: int, size: int | None, offset: int) -> BinaryIO:
        first = start + offset
        wanted = f"bytes={first}-" + (str(start + size - 1) if size is not None else "")
        headers = _PLAIN | ({"Range": wanted} if first or size is not None else {})
        try:
            response = self.network.open(item.url, headers)
        except urllib.error.HTTPError as error:
            if error.code == 416:
                raise ChangedError(f"has no byte {first:,} any more") from error
            raise
        found = _version(response)
        if item.version and found and found != item.version:
            response.close()
            raise ChangedError("is not the file that was listed")
        if first and response.status != 206:
            _skip(response, first)  # a server without ranges
        return cast(BinaryIO, response)

    def _find_elsewhere(self, url: str) -> list[RemoteItem]:
        fs, path = self._filesystem(url)
        with _errors_as_os():
            if any(mark in path for mark in "*?["):
                found = [info for info in fs.glob(path, detail=True).values() if info["type"] == "file"]
                root = path[: min(path.index(mark) for mark in "*?[" if mark in path)].rpartition("/")[0]
            elif fs.isdir(path):
                found, root = list(fs.find(path, detail=True).values()), path.rstrip("/")
            else:
                found, root = [fs.info(path)], path.rpartition("/")[0]
        return sorted(
            (
                RemoteItem(
                    str(info["name"])[len(root) :].lstrip("/") if root else str(info["name"]),
                    int(info["size"]) if info.get("size") is not None else UNKNOWN_SIZE,
                    url=str(fs.unstrip_protocol(info["name"])),
                    version=_version_in(fs.info(info["name"])),  # listings may tell it in another form
                )
                for info in found
            ),
            key=lambda item: item.path,
        )

    def _open_elsewhere(self, item: RemoteItem, start: int, size: int | None, offset: int) -> BinaryIO:
        fs, path = self._filesystem(item.url)
        with _errors_as_os():
            if item.version and _version_in(fs.info(path)) != item.version:
                raise ChangedError("is not the file that was listed")
            opened = fs.open(path, "rb", block_size=_BLOCK)
            opened.seek(start + offset)
        return cast(BinaryIO, opened)

    def _filesystem(self, url: str) -> tuple[Any, str]:
        disable_telemetry()
        import fsspec

        try:
            fs, path = fsspec.core.url_to_fs(url, **self.options)
        except (ImportError, ValueError) as error:
            scheme = url.partition(":")[0]
            missing = isinstance(error, ImportError)
            named = _INSTALLS.get(scheme) or "the library that is named here"
            raise ConfigError(
                f"{url}: {error}",
                rule="an address begins with https://, s3://, hf:// or another scheme that fsspec knows",
                fix=f"pip install '{named}'." if missing else "Correct the address.",
            ) from error
        return fs, str(path)


_PLAIN = {"Accept-Encoding": "identity"}


class RemoteStream(io.RawIOBase):
    """A stream that is opened anew, where it was, when its line breaks.

    Args:
        reopen: opens the content from a byte offset on.
        label: the address, for messages.
        size: bytes of the whole, if known: an earlier end is a broken line.
        sha1: digest of the whole in hex, checked at its end; "" for none.
    """

    def __init__(self, reopen: Callable[[int], BinaryIO], label: str, size: int | None, sha1: str = "") -> None:
        self._reopen = reopen
        self._label = label
        self._size = size
        self._sha1 = sha1
        self._hash = hashlib.sha1(usedforsecurity=False) if sha1 else None
        self._hashed = 0
        self._offset = 0
        self._inner: BinaryIO | None = None

    def readable(self) -> bool:
        """Always: this is a reader."""
        return True

    def seekable(self) -> bool:
        """Where the size is known."""
        return self._size is not None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; the next read opens the content there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size or 0}[whence]
        if base + offset != self._offset:
            self._let_go()
            self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        """The byte that is read next."""
        return self._offset

    def readinto(self, buffer: Any) -> int:
        """Read, going on after breaks.

        Raises:
            DownloadError: out of reach, changed, or not of the digest.
        """
        wanted = len(buffer) if self._size is None else min(len(buffer), max(0, self._size - self._offset))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                data = self._read(wanted) if wanted else b""
                break
            except (OSError, http.client.HTTPException) as error:
                self._let_go()
                if attempt == ATTEMPTS or is_final(error) or isinstance(error, ChangedError):
                    raise unreachable(self._label, error) from error
                time.sleep(pause_after(error, attempt))
        if self._hash is not None and self._hashed == self._offset:
            self._hash.update(data)
            self._hashed += len(data)
            if not data and self._hash.hexdigest() != self._sha1:
                raise unreachable(self._label, ChangedError(f"has the sha1 {self._hash.hexdigest()}, not {self._sha1}"))
        self._offset += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _read(self, wanted: int) -> bytes:
        if self._inner is None:
            self._inner = self._reopen(self._offset)
        read1 = getattr(self._inner, "read1", self._inner.read)
        with _errors_as_os():
            data: bytes = read1(wanted)
        if not data and self._size is not None:
            raise EarlyEndError(f"ended after {self._offset:,} of {self._size:,} bytes")
        return data

    def _let_go(self) -> None:
        if self._inner is not None:
            inner, self._inner = self._inner, None
            with _errors_as_os():
                inner.close()

    def close(self) -> None:
        """Close the connection."""
        self._let_go()
        super().close()


class EarlyEndError(OSError):
    """The line broke before the end of the file."""


class _Joined(io.RawIOBase):
    """Streams, one after another."""

    def __init__(self, parts: Iterator[RemoteStream]) -> None:
        self._parts = parts
        self._part: RemoteStream | None = next(parts, None)

    def readable(self) -> bool:
        """Always: this is a reader."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read from the part at hand."""
        while self._part is not None:
            if read := self._part.readinto(buffer):
                return read
            self._part.close()
            self._part = next(self._parts, None)
        return 0

    def close(self) -> None:
        """Close the part at hand."""
        if self._part is not None:
            self._part.close()
        super().close()


@contextlib.contextmanager
def _errors_as_os() -> Iterator[None]:
    """Each store's library has errors of its own kind; here they are all `OSError`."""
    try:
        yield
    except (OSError, http.client.HTTPException, GroundupError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}"[:300]) from error


def _skip(stream: BinaryIO | http.client.HTTPResponse, count: int) -> None:
    while count:
        skipped = len(stream.read(min(count, MEBIBYTE)))
        if not skipped:
            raise EarlyEndError("ended before the wanted byte")
        count -= skipped


def _version(response: http.client.HTTPResponse) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _version_in(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")


def unreachable(url: str, error: Exception) -> DownloadError:
    """The error of an address that gave nothing, or something else."""
    if isinstance(error, ChangedError):
        return DownloadError(
            f"{url}: {error}",
            rule="a corpus is made of the files as they were when they were listed",
            fix="Give the source another `edition`, so that its files are listed anew.",
        )
    return DownloadError(
        f"{url}: {error}",
        rule="the files of a source must be within reach",
        fix=_FIXES.get(getattr(error, "code", None) or type(error).__name__, "Check the address and the network")
        + ", then run this again: it goes on.",
    )


_FIXES: Mapping[int | str, str] = {
    "RefusedError": "If it is a mirror of your own, set allow_private_hosts = true; else correct the address",
    401: "Check the login",
    403: "Check the login and the address",
    404: "Check the address",
}
