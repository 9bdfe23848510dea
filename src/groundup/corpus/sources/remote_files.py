"""List and open remote files.

The streams of remote files reconnect after an error, and they detect whether a file has changed.
"""

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
from groundup.corpus.fetching.stream import (
    ChangedError,
    ConcatenatedStream,
    EarlyEndError,
    RemoteStream,
    as_os_errors,
    download_error,
)
from groundup.corpus.sources.base import Item
from groundup.corpus.streams import MEBIBYTE

UNKNOWN_SIZE = 1 << 30  # assumed size in bytes if the server does not report the size
_BLOCK = 4 * MEBIBYTE  # number of bytes per request to an object store
_VERSION_KEYS = (
    "ETag", "etag", "blob_id", "oid", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created",
)  # fmt: skip
_INSTALLS = {"s3": "groundup[remote]", "s3a": "groundup[remote]", "hf": "groundup[hub]"}


@dataclass(frozen=True, slots=True)
class RemoteItem(Item):
    """A remote file, with everything that a worker process needs to open it.

    Attributes:
        url: URL of the file.
        version: ETag or modification time, or "" if the store reports neither of them.
        ranges: Byte ranges (offset, length) to read in sequence, or an empty tuple to read the whole file.
        sha1: SHA-1 in hex, which is verified when the whole file is read, or "" if the SHA-1 is unknown.
    """

    url: str = ""
    version: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    sha1: str = ""


@dataclass(frozen=True, slots=True)
class Remote:
    """Lists and opens files at https and http URLs, local paths, and other URLs that fsspec supports."""

    network: Network
    options: Mapping[str, Any] = field(default_factory=dict)

    def find(self, url: str) -> list[RemoteItem]:
        """List the files at a URL.

        Args:
            url: URL of a file. On object stores, the URL may also name a directory or contain the wildcard "*".

        Returns:
            The files, sorted by path.

        Raises:
            ConfigError: The URL scheme is unknown, or the library for this scheme is not installed.
            DownloadError: No file was found, or the URL is unreachable.
        """
        find = self._find_http if url.startswith(("http://", "https://")) else self._find_fsspec
        try:
            found = retry(lambda: find(url))
        except (OSError, http.client.HTTPException) as error:
            raise download_error(url, error) from error
        if not found:
            raise DownloadError(f"{url}: no files", fix="Check the URL.")
        return found

    def open(self, item: RemoteItem) -> BinaryIO:
        """Open a file as a buffered stream. The stream is seekable unless the item has ranges.

        Reading from the stream raises `DownloadError` after several failed attempts, or if the file has changed since
        it was listed.
        """
        if item.ranges:
            return io.BufferedReader(
                ConcatenatedStream(self._part(item, start, size) for start, size in item.ranges), MEBIBYTE
            )
        return io.BufferedReader(self._part(item, 0, None), MEBIBYTE)

    def page(self, url: str, accept: str = "*/*") -> str:
        """Return the text of a page.

        Raises:
            DownloadError: The page is unreachable. The cause of the error contains the HTTP status.
        """
        try:
            return retry(lambda: self.network.page(url, accept)[1])
        except (OSError, http.client.HTTPException) as error:
            raise download_error(url, error) from error

    def json_lines(self, url: str) -> list[Any]:
        """Return the values of a JSON Lines page, or the single value of a JSON page.

        Raises:
            DownloadError: The page is unreachable, or its content is not JSON.
        """
        text = self.page(url, "application/json")
        for pieces in (text.splitlines(), [text]):
            with contextlib.suppress(ValueError):
                return [json.loads(piece) for piece in pieces if piece.strip()]
        raise DownloadError(
            f"{url}: {text[:80]!r}",
            rule="not JSON",
            fix="Check the URL. If the URL is right, the server has a problem: try again later.",
        )

    def _part(self, item: RemoteItem, start: int, size: int | None) -> RemoteStream:
        web = item.url.startswith(("http://", "https://"))
        reopen = partial(self._open_http if web else self._open_fsspec, item, start, size)
        known = size if size is not None else item.size if item.size != UNKNOWN_SIZE else None
        return RemoteStream(reopen, item.url, known, item.sha1)

    def _find_http(self, url: str) -> list[RemoteItem]:
        try:
            response = self.network.open(url, _PLAIN, method="HEAD")
        except urllib.error.HTTPError as error:
            if error.code not in (403, 405, 501):  # signed URLs and some servers do not allow HEAD
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
        byte_range = f"bytes={first}-" + (str(start + size - 1) if size is not None else "")
        headers = _PLAIN | ({"Range": byte_range} if first or size is not None else {})
        try:
            response = self.network.open(item.url, headers)
        except urllib.error.HTTPError as error:
            if error.code == 416:
                raise ChangedError(f"has fewer than {first:,} bytes now") from error
            raise
        found = _version(response)
        if item.version and found and found != item.version:
            response.close()
            raise ChangedError("has changed since it was listed")
        if first and response.status != 206:
            _skip(response, first)  # the server ignored the requested byte range
        return cast(BinaryIO, response)

    def _find_fsspec(self, url: str) -> list[RemoteItem]:
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
                    # A file listing may contain another form of the version.
                    version=_version_in(fs.info(info["name"])),
                )
                for info in found
            ),
            key=lambda item: item.path,
        )

    def _open_fsspec(self, item: RemoteItem, start: int, size: int | None, offset: int) -> BinaryIO:
        fs, path = self._filesystem(item.url)
        with as_os_errors():
            if item.version and _version_in(fs.info(path)) != item.version:
                raise ChangedError("has changed since it was listed")
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
            package = _INSTALLS.get(scheme) or "the library named above"
            raise ConfigError(
                f"{url}: {error}",
                rule="" if missing else "a URL starts with https://, s3://, hf:// or another scheme of fsspec",
                fix=f"Run pip install '{package}'." if missing else "Correct the URL.",
            ) from error
        return fs, str(path)


_PLAIN = {"Accept-Encoding": "identity"}


def _skip(stream: BinaryIO | http.client.HTTPResponse, count: int) -> None:
    while count:
        skipped = len(stream.read(min(count, MEBIBYTE)))
        if not skipped:
            raise EarlyEndError("the content ended before the requested byte")
        count -= skipped


def _version(response: http.client.HTTPResponse) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _version_in(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
