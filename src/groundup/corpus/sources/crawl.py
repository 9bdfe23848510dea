"""Common Crawl as a text source: whole files of a crawl, or single captured pages that the index finds."""

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
from groundup.corpus.sources.credentials import resolve_variables
from groundup.corpus.sources.listed import ListedSource
from groundup.corpus.sources.remote_files import Remote, RemoteItem
from groundup.corpus.streams import text_lines

_CONNECTIONS = 8
_COLUMNS = {  # column names in the responses of the CDX server and in the columnar index
    "filename": ("filename", "warc_filename"),
    "offset": ("offset", "warc_record_offset"),
    "length": ("length", "warc_record_length"),
}


class CrawlSource(ListedSource):
    """Pages of Common Crawl, or of any web archive that has the same directory layout.

    Exactly one of these settings selects the files:
    - `crawl` and `file_type`: the file list of a crawl.
    - `paths`: a file list that you supply.
    - `captures`: a table of captures (stored pages). Each capture is a byte range of a WARC file.

    If `crawl` and `index` are both set, only the captures whose URL matches a pattern in `index` are read.
    """

    kind: Literal["crawl"] = setting("crawl", help="pages of Common Crawl")
    crawl: str | None = setting(None, help='id of the crawl, such as "CC-MAIN-2025-05"', pattern=r"^[A-Za-z0-9._-]+$")
    file_type: Literal["warc", "wet"] = setting(
        "warc", help='type of the files: "warc" (web pages) or "wet" (text that Common Crawl extracted)'
    )
    paths: str | None = setting(
        None, help="file list to use instead of the file list of the crawl, with one path or URL per line (may be .gz)"
    )
    index: list[str] = setting([], help='URL patterns to look up in the index, such as "*.example.org/*"')
    index_filter: list[str] = setting(
        ["=status:200", "~mime-detected:.*html.*"],
        help='filters of the CDX server, such as "~languages:.*deu.*" (= equals, ~ matches a regex, ! negates)',
    )
    captures: str | None = setting(
        None, help="table of captures (filename, offset, length), such as the result of a query on the columnar index"
    )
    skip: int = setting(0, help="number of files (or captures) to skip at the start of the file list", ge=0)
    limit: int | None = setting(
        None, help="maximum number of files (or captures); default: all (a crawl has up to 80,000 files of 1 GB)", ge=1
    )
    base: str = setting(
        "https://data.commoncrawl.org", help="URL or directory to which the paths in the file list are relative"
    )
    index_base: str = setting("https://index.commoncrawl.org", help="URL of the index server of Common Crawl")
    license: str = setting("unknown; Common Crawl's terms of use", help="license of the text, shown in the data card")
    filters: list[str] | None = setting(WEB_FILTERS, help="quality filters for the documents of this source, in order")

    @field_validator("base", "index_base")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if self.index and self.crawl is None:
            raise ValueError("index needs the id of a crawl: set crawl")
        if (self.index or self.captures) and self.file_type != "warc":
            raise ValueError('index and captures refer to WARC files: set file_type = "warc"')
        lists = [self.paths is not None, self.captures is not None, self.crawl is not None]
        if sum(lists) != 1:
            raise ValueError("set exactly one of crawl, paths and captures")
        return self

    @property
    def default_name(self) -> str:
        """The crawl id or the name of the file list, followed by the file type."""
        named = self.crawl or PurePosixPath(self.paths or self.captures or "crawl").name
        return f"{named}-{self.file_type}"

    @property
    def disk_ratio(self) -> float:
        """Upper estimate of the bytes written to disk per byte read.

        From one gigabyte of WARC files, the FineWeb filters keep about 8 MB of text. If no filters are used, about 30
        MB of text are kept.
        """
        return 0.06 if self.file_type == "warc" else 1.0

    @property
    def addresses(self) -> list[str]:
        """The URLs of the file list and of the server that stores the files."""
        return [each for each in (self.paths, self.captures, self.base) if each]

    def list_files(self, remote: Remote, console: Console) -> list[RemoteItem]:
        """Read the list and request the size of each file.

        No requests are needed for captures, because the index contains the sizes of captures.
        """
        if self.index or self.captures:
            found = self._query_index(remote, console) if self.index else self._table(remote)
            return list(self._grouped(self._limited(found)))
        source = (
            resolve_variables(self.paths)
            if self.paths
            else f"{resolve_variables(self.base)}/crawl-data/{self.crawl}/{self.file_type}.paths.gz"
        )
        paths = [path for path in self._limited(_lines(remote, source)) if self.chooses(path)]
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
        return path if "://" in path or path.startswith("/") else f"{resolve_variables(self.base)}/{path}"

    def _limited(self, listed: Iterable[Any]) -> Iterator[Any]:
        return islice(listed, self.skip, None if self.limit is None else self.skip + self.limit)

    def _query_index(self, remote: Remote, console: Console) -> Iterator[dict[str, Any]]:
        """Yield the captures that the index server finds, one result page at a time."""
        for pattern in self.index:
            address = f"{resolve_variables(self.index_base)}/{self.crawl}-index"
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
        for item in remote.find(resolve_variables(self.captures)):
            for record in read_records(item, partial(remote.open, item), None, None):
                if not isinstance(record, Record) or not isinstance(record.value, dict):
                    raise DataError(
                        f"{record.origin}: {getattr(record, 'reason', 'not a table row')}",
                        rule="captures must be JSON Lines, CSV or Parquet with the columns filename, offset and length",
                        fix="Correct the file that the setting captures names.",
                    )
                yield record.value

    def _grouped(self, captures: Iterable[dict[str, Any]]) -> Iterator[RemoteItem]:
        """Yield one item per file, sorted by name, with the byte ranges of its captures.

        Adjacent byte ranges are merged.
        """
        files: dict[str, set[tuple[int, int]]] = {}
        for capture in captures:
            name, offset, length = (_column(capture, key) for key in _COLUMNS)
            files.setdefault(str(name), set()).add((int(offset), int(length)))
        for name, ranges in sorted(files.items()):
            merged = _merge_adjacent(sorted(ranges))
            yield RemoteItem(name, sum(size for _, size in merged), url=self._address(name), ranges=tuple(merged))

    def provenance(self) -> dict[str, str]:
        """Return the crawl, its base URL and the index patterns."""
        patterns = ", ".join(self.index)
        return {"crawl": self.crawl or "", "base": redacted(self.base), "index": patterns} | super().provenance()


def _lines(remote: Remote, source: str) -> Iterator[str]:
    for item in remote.find(source):
        with remote.open(item) as stream:
            yield from text_lines(stream, item.size)


def _answer(remote: Remote, address: str, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
    try:
        return remote.json_lines(f"{address}?{urllib.parse.urlencode(query)}")
    except DownloadError as error:
        if getattr(error.__cause__, "code", None) == 404:  # the server returns status 404 if no capture matches
            return []
        raise


def _column(capture: dict[str, Any], key: str) -> Any:
    for name in _COLUMNS[key]:
        if capture.get(name) is not None:
            return capture[name]
    raise DataError(
        f"capture has no {key}: {json.dumps(capture, default=str)[:120]}",
        rule="each capture needs a filename, an offset and a length",
        fix="Correct the table of captures, or the URL of the index server.",
    )


def _merge_adjacent(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, size in ranges:
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + size)
        else:
            merged.append((start, size))
    return merged
