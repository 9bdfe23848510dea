"""Files elsewhere, read as streams: they go on after a broken line, and are noticed when they change meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, cast

from groundup.core.errors import ConfigError, DownloadError
from groundup.core.telemetry import disable_telemetry
from groundup.corpus.fetching.network import Network, retry
from groundup.corpus.fetching.stream import ChangedError, EarlyEndError, Joined, RemoteStream, as_os_errors, unreachable
from groundup.corpus.sources.base import Item
from groundup.corpus.streams import MEBIBYTE

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
            found = retry(lambda: find(url))
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
            return io.BufferedReader(Joined(self._part(item, start, size) for start, size in item.ranges), MEBIBYTE)
        return io.BufferedReader(self._part(item, 0, None), MEBIBYTE)

    def page(self, url: str, accept: str = "*/*") -> str:
        """The text of a page.

        Raises:
            DownloadError: out of reach; its cause tells the status.
        """
        try:
            return retry(lambda: self.network.page(url, accept)[1])
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(url, error) from error

    def json_lines(self, url: str) -> list[Any]:
        """The values of a page of JSON, one a line; or one over all lines.

        Raises:
            DownloadError: out of reach, or something else.
        """
        text = self.page(url, "application/json")
        for pieces in (text.splitlines(), [text]):
            with contextlib.suppress(ValueError):
                return [json.loads(piece) for piece in pieces if piece.strip()]
        raise DownloadError(
            f"{url}: {text[:80]!r}",
            rule="this address answers in JSON",
            fix="Check the address; if it is right, the server has trouble: try later.",
        )

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
        with as_os_errors():
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
        with as_os_errors():
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
