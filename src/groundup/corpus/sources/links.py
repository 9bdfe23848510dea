"""Pages that a list of links names, as a source of text: how WebText was made (Radford et al. 2019)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

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
_SHOWN = 200  # characters of what is no address
# How pages are asked for and where they are kept, not which: another value must not fetch all anew.
_MANNERS = {"path", "store", "delay", "max_delay", "connections", "contact"}


class LinksSource(SourceConfig):
    """The pages of a list of links, fetched once and kept as WARC.

    Each host is asked by one connection at a time, as its robots.txt allows. Links that give no page are counted by
    the reason.
    """

    renamed: ClassVar[Mapping[str, str]] = {**SourceConfig.renamed, "longest_delay": "max_delay"}

    kind: Literal["links"] = setting("links", help="the pages of a list of links")
    path: Path = setting(
        help="the list: lines of text (address, and score if there is one), or CSV, TSV, JSON lines, Parquet"
    )
    url_field: str = setting("url", help="column or key that holds the address, in lists that have such")
    score_field: str = setting("score", help="column or key that holds the score")
    min_score: float | None = setting(None, help="leave out links with a lower score, or none (WebText: 3)")
    limit: int | None = setting(None, help="fetch no more than this many links", ge=1)
    delay: float = setting(1.0, help="seconds between two requests to a host; its robots.txt may ask for more", ge=0)
    max_delay: float = setting(60.0, help="leave hosts alone that ask for more seconds than this", ge=0)
    connections: int = setting(32, help="requests at the same time, each to another host", ge=1, le=512)
    max_page_bytes: int = setting(10_000_000, help="larger pages are left out", ge=1)
    max_page_seconds: float = setting(60.0, help="pages that take longer are left out", gt=0)
    content_types: list[str] = setting(
        ["text/html", "application/xhtml+xml", "text/plain", "application/pdf"], help="media types that are kept"
    )
    contact: str = setting("", help="page or e-mail address, told to the hosts, for those who have something to say")
    store: Path | None = setting(None, help="folder for the fetched pages; default: in the cache")
    filters: list[str] | None = setting(WEB_FILTERS, help="rules for this source's documents, in order")
    allow_private_hosts: bool = setting(False, help="also fetch from hosts at private addresses: an intranet of yours")

    @property
    def default_name(self) -> str:
        """The list's name."""
        return self.path.name.partition(".")[0] or "links"

    def identity(self) -> str:
        """Digest of the list and of what decides which pages are kept."""
        if not self.path.is_file():
            raise DataError(
                f"{self.path}: no such file", rule="a source of kind links names a list", fix="Check the path."
            )
        keys = self.model_dump(mode="json", exclude=set(SourceConfig.model_fields) | _MANNERS)
        return hashlib.blake2b(
            f"{file_digest(self.path)}{json.dumps(keys, sort_keys=True)}".encode(), digest_size=16
        ).hexdigest()

    @property
    def _directory(self) -> Path:
        return self.store or cache_dir() / "links" / self.identity()

    def fetch(self, console: Console) -> None:
        """Fetch the pages that are not there yet; when all were tried once, nothing.

        Raises:
            DataError: the list cannot be read.
            DownloadError: the network is down.
        """
        directory = self._directory
        with (
            locked(directory / LOCK, wait=True),
            closing(PageStore(directory)) as store,
        ):
            _require_same(store, directory, self.identity())
            if store.complete:
                return
            manners = CrawlPolicy(
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
                PageFetcher(network, manners, store, progress.advance).run(iter(links))
            store.finish(low=links.low, repeated=links.repeated)

    def items(self) -> list[Item]:
        """The WARC files; and each link that gave no page, refused for its reason."""
        with closing(PageStore(self._directory)) as store:
            pages: list[Item] = [RemoteItem(path.name, length, url=str(path)) for path, length in store.files()]
            return pages + [Item(redacted(url), 0, refused=reason) for url, reason in store.failures()]

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Give each file with the call that opens it."""
        for item in items:
            yield item, partial(_open, Path(getattr(item, "url", "")))

    def provenance(self) -> dict[str, str]:
        """The list, and how much of it was not asked for."""
        with closing(PageStore(self._directory)) as store:
            facts = {
                "links below the least score": f"{store.fact('low'):,}",
                "links that were named twice": f"{store.fact('repeated'):,}",
            }
        least = {} if self.min_score is None else {"least score": f"{self.min_score:g}"}
        return {"list": self.path.name, "digest of the list": file_digest(self.path)} | least | facts


class _Links:
    """The links of the list that are still to be fetched; counts those that are not."""

    def __init__(self, source: LinksSource, store: PageStore) -> None:
        self._source = source
        self._store = store
        self.low = 0
        self.repeated = 0

    def __iter__(self) -> Iterator[str]:
        source, taken = self._source, 0
        seen = _Seen()
        for given, score in _listed(source):
            if source.limit is not None and taken >= source.limit:
                return
            if source.min_score is not None and not (score is not None and score >= source.min_score):
                self.low += 1
                continue
            try:
                url = normalize_url(given)
                failure = "" if url.startswith(("http://", "https://")) else _REFUSED_SCHEME
            except ValueError:
                url = well_formed(given[:_SHOWN])
                failure = _REFUSED_SCHEME if given[:5].lower() == "file:" else "not an address"
            if seen.add(url):
                self.repeated += 1
                continue
            taken += 1
            if self._store.knows(url):
                continue
            if failure:
                self._store.fail(url, failure)
            else:
                yield url


class _Seen:
    """Which addresses were met already; kept on disk, since a list may hold more than memory does."""

    def __init__(self) -> None:
        import sqlite3

        self._database = sqlite3.connect("", check_same_thread=False)  # a temporary file
        self._database.execute("CREATE TABLE seen (mark BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, url: str) -> bool:
        """Note an address; whether it was there."""
        mark = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (mark,)).rowcount == 0


def _listed(source: LinksSource) -> Iterator[tuple[str, float | None]]:
    """(address, score) of each entry of the list."""
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
                rule="each entry of a list of links holds an address",
                fix="Name the column or key with url_field, and that of the score with score_field.",
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
    """A folder of the user's own holds the pages of one list."""
    known = store.identity(identity)
    if known != identity:
        raise DataError(
            f"{directory}: holds the pages of another list, or of other settings",
            rule="a folder of fetched pages belongs to one list",
            fix="Give another folder as `store`, or remove this one.",
        )
