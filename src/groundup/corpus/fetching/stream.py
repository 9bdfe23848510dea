"""Streams from elsewhere, which go on after a broken line."""

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
    """The file is not the one that was listed."""


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
                time.sleep(retry_delay(error, attempt))
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
        with as_os_errors():
            data: bytes = read1(wanted)
        if not data and self._size is not None:
            raise EarlyEndError(f"ended after {self._offset:,} of {self._size:,} bytes")
        return data

    def _let_go(self) -> None:
        if self._inner is not None:
            inner, self._inner = self._inner, None
            with as_os_errors():
                inner.close()

    def close(self) -> None:
        """Close the connection."""
        self._let_go()
        super().close()


class EarlyEndError(OSError):
    """The line broke before the end of the file."""


class Joined(io.RawIOBase):
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
def as_os_errors() -> Iterator[None]:
    """Each store's library has errors of its own kind; here they are all `OSError`."""
    try:
        yield
    except (OSError, http.client.HTTPException, GroundupError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}"[:300]) from error


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
