"""Common Crawl as a source of text: whole files of a crawl, or the captures that an index names."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError, DownloadError
from groundup.core.redact import redacted
from groundup.corpus.sources.base import WEB_FILTERS
from groundup.corpus.sources.credentials import revealed
from groundup.corpus.sources.listed import ListedSource
from groundup.corpus.sources.remote_files import Remote, RemoteItem
from groundup.corpus.streams import text_lines

_CONNECTIONS = 8
_COLUMNS = {  # by the names of the CDX server and of the columnar index
    "filename": ("filename", "warc_filename"),
    "offset": ("offset", "warc_record_offset"),
    "length": ("length", "warc_record_length"),
}


class CrawlSource(ListedSource):
    """Pages of Common Crawl, or of any archive that is laid out like it.

    The files come from one of three lists: a crawl's own (`crawl` and `what`), one of yours (`paths`), or an index:
    the captures that match address patterns (`index`) or stand in a table (`captures`), which are read as byte ranges.
    """

    kind: Literal["crawl"] = setting("crawl", help="pages of Common Crawl")
    crawl: str | None = setting(None, help='id of the crawl, e.g. "CC-MAIN-2025-05"', pattern=r"^[A-Za-z0-9._-]+$")
    what: Literal["warc", "wet"] = setting("warc", help='"warc": pages; "wet": text that Common Crawl took from them')
    paths: str | None = setting(None, help="list of files, a path or address a line, instead of the crawl's (.gz too)")
    index: list[str] = setting([], help='address patterns to look up in the index, e.g. "*.example.org/*"')
    index_filter: list[str] = setting(
        ["=status:200", "~mime-detected:.*html.*"],
        help='filters of the index, e.g. "~languages:.*deu.*" (of its CDX server: = equals, ~ matches, ! not)',
    )
    captures: str | None = setting(
        None, help="table of captures (filename, offset, length), e.g. a query's result on the columnar index"
    )
    first: int = setting(0, help="how many files (or captures) of the list to leave out", ge=0)
    limit: int | None = setting(None, help="how many to take; default: all, which may be 80,000 files of 1 GB", ge=1)
    base: str = setting("https://data.commoncrawl.org", help="where the files are: an address, or a folder")
    index_base: str = setting("https://index.commoncrawl.org", help="address of the index server")
    licence: str = setting("unknown; Common Crawl's terms of use", help="licence of the text, for the data card")
    filters: list[str] | None = setting(WEB_FILTERS, help="rules for this source's documents, in order")

    @field_validator("base", "index_base")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if self.index and self.crawl is None:
            raise ValueError("an index is that of a crawl: give its id as crawl")
        if (self.index or self.captures) and self.what != "warc":
            raise ValueError('an index tells captures of WARC files: leave what = "warc"')
        lists = [self.paths is not None, self.captures is not None, self.crawl is not None]
        if sum(lists) != 1:
            raise ValueError("give one of crawl, paths and captures")
        return self

    @property
    def default_name(self) -> str:
        """The crawl, or the list."""
        named = self.crawl or PurePosixPath(self.paths or self.captures or "crawl").name
        return f"{named}-{self.what}"

    @property
    def disk_share(self) -> float:
        """Of a gigabyte of pages the filters leave about 8 MB of text (FineWeb); without them it would be 30."""
        return 0.06 if self.what == "warc" else 1.0

    @property
    def addresses(self) -> list[str]:
        """Where the files, their list and the index are."""
        return [each for each in (self.paths, self.captures, self.base) if each]

    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """Read the list, and ask for each file's size; of captures the index tells it."""
        if self.index or self.captures:
            found = self._looked_up(remote, console) if self.index else self._table(remote)
            return list(self._grouped(self._chosen(found)))
        source = (
            revealed(self.paths)
            if self.paths
            else f"{revealed(self.base)}/crawl-data/{self.crawl}/{self.what}.paths.gz"
        )
        paths = [path for path in self._chosen(_lines(remote, source)) if self.chooses(path)]
        with (
            console.progress("listing", len(paths), "files") as progress,
            ThreadPoolExecutor(_CONNECTIONS, "listing") as pool,
        ):
            items = []
            for item in pool.map(partial(self._file, remote), paths):
                items.append(item)
                progress.advance()
        return items

    def _file(self, remote: Remote, path: str) -> RemoteItem:
        (found,) = remote.find(self._address(path))
        return RemoteItem(path, found.size, url=found.url, version=found.version)

    def _address(self, path: str) -> str:
        return path if "://" in path or path.startswith("/") else f"{revealed(self.base)}/{path}"

    def _chosen(self, listed: Iterable[Any]) -> Iterator[Any]:
        return islice(listed, self.first, None if self.limit is None else self.first + self.limit)

    def _looked_up(self, remote: Remote, console: Console) -> Iterator[dict[str, Any]]:
        """The captures that the index server finds, page by page."""
        for pattern in self.index:
            address = f"{revealed(self.index_base)}/{self.crawl}-index"
            query = [("url", pattern), ("output", "json"), *(("filter", each) for each in self.index_filter)]
            counts = _answer(remote, address, [*query, ("showNumPages", "true")])
            pages = int(counts[0].get("pages", 0)) if counts else 0
            with console.progress(f"looking up {pattern}", pages, "pages") as progress:
                for page in range(pages):
                    yield from _answer(remote, address, [*query, ("page", str(page))])
                    progress.advance()

    def _table(self, remote: Remote) -> Iterator[dict[str, Any]]:
        from groundup.corpus.formats import Record, read_records

        assert self.captures is not None
        for item in remote.find(revealed(self.captures)):
            for record in read_records(item, partial(remote.open, item), None, None):
                if not isinstance(record, Record) or not isinstance(record.value, dict):
                    raise DataError(
                        f"{record.origin}: {getattr(record, 'reason', 'no table')}",
                        rule="a table of captures is JSON lines, CSV or Parquet with filename, offset and length",
                        fix="Correct `captures`.",
                    )
                yield record.value

    def _grouped(self, captures: Iterable[dict[str, Any]]) -> Iterator[RemoteItem]:
        """One item for the captures of a file, in its order, neighbours as one range."""
        files: dict[str, set[tuple[int, int]]] = {}
        for capture in captures:
            name, offset, length = (_column(capture, key) for key in _COLUMNS)
            files.setdefault(str(name), set()).add((int(offset), int(length)))
        for name, ranges in sorted(files.items()):
            merged = _neighbours_merged(sorted(ranges))
            yield RemoteItem(name, sum(size for _, size in merged), url=self._address(name), ranges=tuple(merged))

    def provenance(self) -> dict[str, str]:
        """The crawl and where it was read."""
        looked_up = ", ".join(self.index)
        return {"crawl": self.crawl or "", "base": redacted(self.base), "index": looked_up} | super().provenance()


def _lines(remote: Remote, source: str) -> Iterator[str]:
    for item in remote.find(source):
        with remote.open(item) as stream:
            yield from text_lines(stream, item.size)


def _answer(remote: Remote, address: str, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
    try:
        return remote.json_lines(f"{address}?{urllib.parse.urlencode(query)}")
    except DownloadError as error:
        if getattr(error.__cause__, "code", None) == 404:  # the server's way to say that it found none
            return []
        raise


def _column(capture: dict[str, Any], key: str) -> Any:
    for name in _COLUMNS[key]:
        if capture.get(name) is not None:
            return capture[name]
    raise DataError(
        f"capture without {key}: {json.dumps(capture, default=str)[:120]}",
        rule="a capture is a filename, an offset and a length",
        fix="Correct the table of captures, or the address of the index server.",
    )


def _neighbours_merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, size in ranges:
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + size)
        else:
            merged.append((start, size))
    return merged
