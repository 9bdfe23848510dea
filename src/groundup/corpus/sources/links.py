"""Web pages as a text source. The links to the pages are read from a list, as for WebText (Radford et al. 2019)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.files import cache_dir, file_digest
from groundup.core.locks import LOCK, locked
from groundup.core.redact import redacted
from groundup.core.types import well_formed
from groundup.corpus.fetching.fetcher import PageFetcher
from groundup.corpus.fetching.network import Network, user_agent
from groundup.corpus.fetching.pages import MAX_URL_LENGTH, CrawlPolicy, normalize_url
from groundup.corpus.fetching.store import PageStore
from groundup.corpus.sources.base import WEB_FILTERS, Item, Opener, SourceConfig
from groundup.corpus.sources.remote_files import RemoteItem
from groundup.corpus.streams import text_lines

_LINE = re.compile(r"\s*(?P<url>[^\s,;]*://\S*?)(?:[\s,;]+(?P<score>[-+]?\d+(?:\.\d+)?))?\s*")
_REFUSED_SCHEME = "refused: not http or https"
_SHOWN = 200  # maximum number of characters that are shown of an invalid URL

# These settings do not change which pages are fetched, so a new value must not fetch all pages again.
_FETCH_SETTINGS = {"path", "store", "delay", "max_delay", "connections", "contact"}


class LinksSource(SourceConfig):
    """The pages of a list of links. The pages are fetched once and stored as WARC files.

    The fetcher opens one connection per host and follows robots.txt. Links that cannot be fetched are counted by
    reason.
    """

    kind: Literal["links"] = setting("links", help="the pages of a list of links")
    path: Path = setting(
        help="file with the links: text lines (URL and optional score), CSV, TSV, JSON Lines or Parquet"
    )
    url_field: str = setting("url", help="column or key that contains the URL, if the list has columns")
    score_field: str = setting("score", help="column or key that contains the score, if the list has columns")
    min_score: float | None = setting(
        None, help="minimum score of a link (3 in WebText); links with a lower score or no score are skipped"
    )
    limit: int | None = setting(None, help="maximum number of links to fetch", ge=1)
    delay: float = setting(
        1.0, help="seconds between requests to the same host; robots.txt may require a longer delay", ge=0
    )
    max_delay: float = setting(
        60.0, help="maximum delay in seconds; hosts whose robots.txt requires a longer delay are skipped", ge=0
    )
    connections: int = setting(32, help="maximum number of concurrent requests, each to a different host", ge=1, le=512)
    max_page_bytes: int = setting(10_000_000, help="maximum size of a page in bytes; larger pages are skipped", ge=1)
    max_page_seconds: float = setting(60.0, help="maximum time per page in seconds; slower pages are skipped", gt=0)
    content_types: list[str] = setting(
        ["text/html", "application/xhtml+xml", "text/plain", "application/pdf"], help="media types of the pages to keep"
    )
    contact: str = setting("", help="URL or e-mail address to send in the User-Agent header")
    store: Path | None = setting(None, help="directory for the fetched pages; default: a directory in the cache")
    filters: list[str] | None = setting(WEB_FILTERS, help="quality filters for the documents of this source, in order")
    allow_private_hosts: bool = setting(False, help="allow hosts with private IP addresses, such as an intranet")

    @property
    def default_name(self) -> str:
        """The name of the list file."""
        return self.path.name.partition(".")[0] or "links"

    def identity(self) -> str:
        """Return a digest of the list of links and of the settings that select pages."""
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file", fix="Check the path of the list.")
        keys = self.model_dump(mode="json", exclude=set(SourceConfig.model_fields) | _FETCH_SETTINGS)
        return hashlib.blake2b(
            f"{file_digest(self.path)}{json.dumps(keys, sort_keys=True)}".encode(), digest_size=16
        ).hexdigest()

    @property
    def _directory(self) -> Path:
        return self.store or cache_dir() / "links" / self.identity()

    def fetch(self, console: Console) -> None:
        """Fetch the pages that are not stored. Links that failed are not tried again.

        Args:
            console: Output for progress.

        Raises:
            DataError: The list cannot be read.
            DownloadError: The network is down.
        """
        directory = self._directory
        with (
            locked(directory / LOCK, wait=True),
            closing(PageStore(directory)) as store,
        ):
            _require_same(store, directory, self.identity())
            if store.complete:
                return
            policy = CrawlPolicy(
                delay=self.delay,
                max_delay=self.max_delay,
                connections=self.connections,
                max_bytes=self.max_page_bytes,
                max_seconds=self.max_page_seconds,
                content_types=tuple(self.content_types),
            )
            network = Network(public_only=not self.allow_private_hosts, timeout=20, agent=user_agent(self.contact))
            links = _Links(self, store)
            with console.progress(f"fetching {self.label}", self.limit, "links") as progress:
                PageFetcher(network, policy, store, progress.advance).run(iter(links))
            store.finish(low=links.low, repeated=links.repeated)

    def items(self) -> list[Item]:
        """Return the WARC files as items, and each failed link as a refused item."""
        with closing(PageStore(self._directory)) as store:
            pages: list[Item] = [RemoteItem(path.name, length, url=str(path)) for path, length in store.files()]
            return pages + [Item(redacted(url), 0, refused=reason) for url, reason in store.failures()]

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Yield each file with a function that opens the file."""
        for item in items:
            yield item, partial(_open, Path(getattr(item, "url", "")))

    def provenance(self) -> dict[str, str]:
        """Return the name and digest of the list, and the number of skipped links."""
        with closing(PageStore(self._directory)) as store:
            facts = {
                "links below the minimum score": f"{store.fact('low'):,}",
                "duplicate links": f"{store.fact('repeated'):,}",
            }
        minimum = {} if self.min_score is None else {"minimum score": f"{self.min_score:g}"}
        return {"list": self.path.name, "digest of the list": file_digest(self.path)} | minimum | facts


class _Links:
    """Iterable over the links that must be fetched. The object counts the links that are skipped."""

    def __init__(self, source: LinksSource, store: PageStore) -> None:
        self._source = source
        self._store = store
        self.low = 0
        self.repeated = 0

    def __iter__(self) -> Iterator[str]:
        source, count = self._source, 0
        seen = _UrlSet()
        for text, score in _read_list(source):
            if source.limit is not None and count >= source.limit:
                return
            if source.min_score is not None and not (score is not None and score >= source.min_score):
                self.low += 1
                continue
            try:
                url = normalize_url(text)
                failure = "" if url.startswith(("http://", "https://")) else _REFUSED_SCHEME
            except ValueError:
                url = well_formed(text[:_SHOWN])
                failure = _REFUSED_SCHEME if text[:5].lower() == "file:" else "not a URL"
            if seen.add(url):
                self.repeated += 1
                continue
            count += 1
            if self._store.knows(url):
                continue
            if failure:
                self._store.fail(url, failure)
            else:
                yield url


class _UrlSet:
    """A set of URLs on disk, because a list of URLs may not fit in memory."""

    def __init__(self) -> None:
        import sqlite3

        # SQLite stores a database without a name in a temporary file.
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE seen (mark BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, url: str) -> bool:
        """Add a URL and return whether it was already present."""
        mark = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (mark,)).rowcount == 0


def _read_list(source: LinksSource) -> Iterator[tuple[str, float | None]]:
    """Yield the URL and the score of each entry of the list."""
    from groundup.corpus.formats import Record, format_of, read_records

    item, opener = Item(source.path.name, source.path.stat().st_size), partial(_open, source.path)
    if format_of(source.path.name) in (None, "text", "markdown"):
        yield from _lines(item, opener)
        return
    for number, record in enumerate(read_records(item, opener, None, None)):
        value = record.value if isinstance(record, Record) else None
        if isinstance(value, dict) and value.get(source.url_field) is not None:
            yield str(value[source.url_field]), _number(value.get(source.score_field))
        elif number == 0 or not isinstance(record, Record):
            raise DataError(
                f"{source.path.name}: {record.origin}: {getattr(record, 'reason', f'no {source.url_field!r}')}",
                rule="each entry of a list of links needs a URL",
                fix="Set url_field (and score_field) to the columns or keys of the list.",
            )


def _lines(item: Item, opener: Opener) -> Iterator[tuple[str, float | None]]:
    with opener() as stream:
        for line in text_lines(stream, item.size):
            if not line.startswith("#"):
                match = _LINE.fullmatch(line) if len(line) <= 2 * MAX_URL_LENGTH else None
                yield (match["url"], _number(match["score"])) if match else (line, None)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _require_same(store: PageStore, directory: Path, identity: str) -> None:
    """Check that the directory that the recipe sets as `store` contains the pages of this list."""
    known = store.identity(identity)
    if known != identity:
        raise DataError(
            f"{directory}: contains pages that were fetched from another list or with other settings",
            fix="Set store to another directory, or remove this directory.",
        )
