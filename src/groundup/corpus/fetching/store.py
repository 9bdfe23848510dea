"""Crash-safe storage of fetched pages in WARC files, and of the outcome of every link in a database."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from groundup.core.files import require_disk_space

_FILE_BYTES = 1 << 30  # maximum size of a WARC file, as for Common Crawl
_COMMIT_SECONDS = 2.0
_MIN_FREE_BYTES = 200_000_000
# Headers that are not archived, because they describe the connection or contain cookies of a single visitor.
_HOP_HEADERS = frozenset(("transfer-encoding", "content-encoding", "content-length", "connection", "set-cookie"))


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """An HTTP response with its decoded body."""

    url: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    fetched: float  # Unix time in seconds

    def message(self) -> bytes:
        """Return the HTTP message to archive.

        As in Common Crawl, the message contains the decoded body, and headers that describe the decoded body.
        """
        kept = [(name, value) for name, value in self.headers if name.lower() not in _HOP_HEADERS]
        coding = [value for name, value in self.headers if name.lower() == "content-encoding"]
        kept += [("X-Crawler-Content-Encoding", value) for value in coding]
        kept += [("Content-Length", str(len(self.body)))]
        lines = [
            f"HTTP/1.1 {self.status} {self.reason}",
            *(f"{name}: {' '.join(value.split())}" for name, value in kept),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + self.body


class PageStore:
    """Store of fetched pages and of the outcome of each link.

    Pages are written to `pages-NNNNN.warc.gz`, with one gzip member per page. The outcomes of links (stored or failed)
    are written to the database `links.sqlite`. The database also records the length of each WARC file. A transaction is
    committed after the pages are written. After a crash, the store truncates each file to the recorded length before it
    writes to the file.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._database = sqlite3.connect(directory / "links.sqlite", check_same_thread=False)
        self._database.executescript(
            "CREATE TABLE IF NOT EXISTS links (url TEXT PRIMARY KEY, failure TEXT NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE IF NOT EXISTS identity (value TEXT NOT NULL);"
            "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
        )
        self._file: BinaryIO | None = None
        self._committed = time.monotonic()

    @property
    def complete(self) -> bool:
        """Whether an attempt was made to fetch every link."""
        return self.fact("complete") == 1

    def fact(self, name: str) -> int:
        """Return the count that is stored under a name, or 0 if the name is unknown."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def identity(self, default: str) -> str:
        """Return the identity of the list of links. If the store is new, its identity is set to `default`."""
        if (row := self._database.execute("SELECT value FROM identity").fetchone()) is None:
            self._database.execute("INSERT INTO identity VALUES (?)", (default,))
            self._database.commit()
        return str(row[0]) if row else default

    def knows(self, url: str) -> bool:
        """Return whether the outcome of a link is already stored."""
        return self._database.execute("SELECT 1 FROM links WHERE url = ?", (url,)).fetchone() is not None

    def files(self) -> list[tuple[Path, int]]:
        """Return the paths and lengths in bytes of the WARC files, sorted by name."""
        rows = self._database.execute("SELECT name, bytes FROM files ORDER BY name")
        return [(self._directory / name, int(length)) for name, length in rows]

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield (URL, reason) of the failed links, sorted by URL."""
        yield from self._database.execute("SELECT url, failure FROM links WHERE failure != '' ORDER BY url")

    def some_page(self) -> str | None:
        """Return a link whose page is stored, or None if no page is stored."""
        row = self._database.execute("SELECT url FROM links WHERE failure = '' LIMIT 1").fetchone()
        return str(row[0]) if row else None

    def add(self, link: str, page: FetchedPage) -> None:
        """Store the page of a link. After a redirect, the URL of the page differs from the link."""
        from fastwarc import GzipWriter
        from fastwarc.warc import WarcRecord, WarcRecordType

        record = WarcRecord()
        record.init_headers(record_type=WarcRecordType.response)
        record.headers["WARC-Target-URI"] = page.url
        record.headers["WARC-Date"] = datetime.fromtimestamp(page.fetched, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        record.headers["Content-Type"] = "application/http; msgtype=response"
        record.set_bytes_content(page.message())
        member = BytesIO()
        writer = GzipWriter(member)
        record.write(writer, checksum_data=True)
        writer.finish()
        file = self._open()
        file.write(member.getvalue())
        self._record(link, "")
        if file.tell() >= _FILE_BYTES:
            self._commit()
            file.close()
            self._file = None

    def fail(self, link: str, reason: str) -> None:
        """Record the reason why the page of a link could not be fetched."""
        self._record(link, reason)

    def finish(self, **facts: int) -> None:
        """Mark the store as complete, and store the given counts under their names."""
        rows = list((facts | {"complete": 1}).items())
        self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)
        self._commit()

    def close(self) -> None:
        """Commit and close all files."""
        self._commit()
        if self._file is not None:
            self._file.close()
        self._database.close()

    def _record(self, link: str, failure: str) -> None:
        self._database.execute("INSERT OR IGNORE INTO links VALUES (?, ?)", (link, failure))
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            self._commit()

    def _open(self) -> BinaryIO:
        if self._file is None:
            require_disk_space(self._directory, _MIN_FREE_BYTES, "fetching pages")
            known = self.files()
            path, length = known[-1] if known else (self._path(0), 0)
            if length >= _FILE_BYTES:
                path, length = self._path(len(known)), 0
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(length)
            self._file.seek(length)
        return self._file

    def _path(self, number: int) -> Path:
        return self._directory / f"pages-{number:05d}.warc.gz"

    def _commit(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            row = (Path(self._file.name).name, self._file.tell())
            self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", row)
        self._database.commit()
        self._committed = time.monotonic()
