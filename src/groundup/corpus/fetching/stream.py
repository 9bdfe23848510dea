"""Streams of remote files, which reconnect after an error."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from groundup.core.errors import DownloadError, GroundupError
from groundup.corpus.fetching.network import ATTEMPTS, is_final, retry_delay


class ChangedError(OSError):
    """Raised if a file has changed since it was listed."""


class RemoteStream(io.RawIOBase):
    """A stream that reopens the file at the current position if the connection fails.

    Args:
        reopen: Function that opens the content at a byte offset.
        label: URL of the file, which error messages show.
        size: Size in bytes, or None if it is unknown. Content that ends before this size is treated as a failed
            connection.
        sha1: SHA-1 of the content in hex, which is verified at the end of the content, or "" to skip the verification.
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
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True if the size of the file is known, because seeking requires the size."""
        return self._size is not None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position. The next read opens the content at this position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size or 0}[whence]
        if base + offset != self._offset:
            self._disconnect()
            self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        """Return the current position in bytes."""
        return self._offset

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer. After an error, the stream reconnects.

        Raises:
            DownloadError: The file is unreachable, the file has changed, or its digest is wrong.
        """
        count = len(buffer) if self._size is None else min(len(buffer), max(0, self._size - self._offset))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                data = self._read(count) if count else b""
                break
            except (OSError, http.client.HTTPException) as error:
                self._disconnect()
                if attempt == ATTEMPTS or is_final(error) or isinstance(error, ChangedError):
                    raise download_error(self._label, error) from error
                time.sleep(retry_delay(error, attempt))
        if self._hash is not None and self._hashed == self._offset:
            self._hash.update(data)
            self._hashed += len(data)
            if not data and self._hash.hexdigest() != self._sha1:
                raise download_error(self._label, ChangedError(f"sha1 is {self._hash.hexdigest()}, not {self._sha1}"))
        self._offset += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _read(self, count: int) -> bytes:
        if self._inner is None:
            self._inner = self._reopen(self._offset)
        read1 = getattr(self._inner, "read1", self._inner.read)
        with as_os_errors():
            data: bytes = read1(count)
        if not data and self._size is not None:
            raise EarlyEndError(f"ended after {self._offset:,} of {self._size:,} bytes")
        return data

    def _disconnect(self) -> None:
        if self._inner is not None:
            inner, self._inner = self._inner, None
            with as_os_errors():
                inner.close()

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
        super().close()


class EarlyEndError(OSError):
    """Raised if the connection fails before the end of the file."""


class ConcatenatedStream(io.RawIOBase):
    """A stream that concatenates several streams."""

    def __init__(self, parts: Iterator[RemoteStream]) -> None:
        self._parts = parts
        self._part: RemoteStream | None = next(parts, None)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes from the current stream, or from the next stream at its end."""
        while self._part is not None:
            if read := self._part.readinto(buffer):
                return read
            self._part.close()
            self._part = next(self._parts, None)
        return 0

    def close(self) -> None:
        """Close the stream that is currently read."""
        if self._part is not None:
            self._part.close()
        super().close()


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Convert the exceptions of object store libraries to `OSError`."""
    try:
        yield
    except (OSError, http.client.HTTPException, GroundupError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}"[:300]) from error


def download_error(url: str, error: Exception) -> DownloadError:
    """Return the error to raise if a URL is unreachable or if its content has changed."""
    if isinstance(error, ChangedError):
        return DownloadError(
            f"{url}: {error}",
            fix="Change the setting `edition` of the source to list the files of the source again.",
        )
    return DownloadError(
        f"{url}: {error}",
        fix=_FIXES.get(getattr(error, "code", None) or type(error).__name__, "Check the URL and the network")
        + ", then run the command again to resume.",
    )


_FIXES: Mapping[int | str, str] = {
    "RefusedError": "For an internal mirror, set allow_private_hosts = true; otherwise correct the URL",
    401: "Check the login",
    403: "Check the login and the URL",
    404: "Check the URL",
}
