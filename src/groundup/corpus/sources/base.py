"""Base class of text sources: their settings, and the selection of their files."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, Literal

from pydantic import field_validator

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.corpus.records import FIELD, RecordOptions

Format = Literal[
    "text", "markdown", "html", "json", "jsonl", "csv", "tsv", "parquet", "xlsx",
    "pdf", "docx", "odt", "epub", "email", "mbox", "chat", "wiki", "warc", "archive",
]  # fmt: skip
TEXT_FORMAT_NAMES = "text, Markdown, HTML, WARC and WET, PDF, DOCX, ODT, EPUB, mail, chat exports and wiki dumps"
TABLE_FORMAT_NAMES = "JSON, CSV, TSV, Parquet and Excel"
FORMAT_NAMES = f"{TEXT_FORMAT_NAMES}, {TABLE_FORMAT_NAMES}, and zip and tar archives of these"  # for messages
Opener = Callable[[], BinaryIO]
# Quality filters in the same order as in FineWeb.
WEB_FILTERS = ["gopher_repetition", "gopher_quality", "c4", "fineweb"]


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a source: a file on disk, or a member of an archive.

    Attributes:
        path: Path inside the source, with "/" between directories.
        size: Stored size in bytes, possibly compressed. The size is used to plan tasks and to show progress.
        refused: Reason why the file must not be opened, such as "unsafe path", or "" if the file may be opened.
        start: Offset of the first byte to read.
        end: Offset after the last byte to read, or None to read until the end of the file.
    """

    path: str
    size: int
    refused: str = ""
    start: int = 0
    end: int | None = None

    @property
    def part_size(self) -> int:
        """Number of stored bytes between the offsets `start` and `end`."""
        return (self.size if self.end is None else self.end) - self.start


class SourceConfig(Config):
    """Base class of the sources of a recipe.

    Four optional settings describe how the records of JSON, JSON Lines, CSV and Parquet files become text:

    - `records = "data.*"`: one document for each element of `data`.
    - `each = "turns.*"`: one part of the document for each element of `turns`.
    - `text = "{title}: {body}"`: the template of the text of a part.
    - `join`: the separator between the parts.

    By default, the field that contains the text is detected. In a record of a conversation, this field is the list of
    messages. In paths, "." selects a field and "*" selects every element.
    """

    name: str = setting(
        "", help="name of the source in the data card and in each document; default: derived from the path or package"
    )
    genre: str = setting(
        "unspecified", help='genre of the text, shown in the data card, such as "books" or "encyclopedia"'
    )
    license: str = setting("unknown", help="license of the text, shown in the data card")
    files: list[str] = setting(
        [],
        help='glob patterns that match the end of the paths to read, such as "docs/**/*.md"; default: all files',
    )
    format: Format | None = setting(
        None, help="format of all files of the source; default: detected from the content of each file"
    )
    records: str | None = setting(None, help="path to the records inside a JSON file; each record becomes a document")
    each: str | None = setting(None, help="path to the parts of a record, such as messages or paragraphs")
    text: str | None = setting(
        None, help='template of the text, such as "{title}\\n\\n{body}"; for the text of a single column, "{column}"'
    )
    join: str = setting("\n", help="separator between the parts of a record")
    languages: list[str] | None = setting(
        None, help="languages to keep from this source; default: the languages of the corpus"
    )
    filters: list[str] | None = setting(
        None, help="quality filters for this source; default: the filters of the corpus"
    )
    markup: Literal["none", "html"] = setting(
        "none", help='markup in the text of records, which is converted to plain text if the value is "html"'
    )

    extraction: Literal["fast", "best"] = setting(
        "best",
        help='main-text extraction for web pages ("best" adds a slower extractor if the fast one finds little text)',
    )

    @field_validator("text")
    @classmethod
    def _has_a_field(cls, value: str | None) -> str | None:
        if value is not None and not FIELD.search(value):
            raise ValueError(f'a template needs at least one field in braces, such as "{{{value or "text"}}}"')
        return value

    @property
    def label(self) -> str:
        """The name of the source that each document stores."""
        return self.name or self.default_name

    @property
    @abstractmethod
    def default_name(self) -> str:
        """The default name of the source."""

    @property
    def disk_ratio(self) -> float:
        """Upper estimate of the bytes written to disk per stored byte. The disk space is checked with this estimate."""
        return 2.0  # the corpus is stored twice, as compressed sorted runs and as compressed shards

    @property
    def record_options(self) -> RecordOptions:
        """The options that convert the records of this source to text."""
        return RecordOptions(
            self.records, self.each, self.text, self.join, self.markup == "html", extraction=self.extraction
        )

    @abstractmethod
    def identity(self) -> str:
        """Return a value that changes if the content of the source changes. The network must not be used."""

    @abstractmethod
    def fetch(self, console: Console) -> None:
        """Download or list the files of the source, unless an earlier call has already done this."""

    @abstractmethod
    def items(self) -> list[Item]:
        """Return the files that match the patterns in `files`, in a fixed order. Call `fetch` first."""

    def parts(self, item: Item, size: int) -> list[Item]:
        """Split a file into parts of about `size` bytes if reading its format can start at any position."""
        return [item]

    @abstractmethod
    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Yield each item with a function that opens it.

        The items must have the same order as in the list that the method `items` returns.
        """

    def digest(self, item: Item) -> str:
        """Return the digest of a file as "sha256:...", or its version in a remote store as "version:...".

        If both are unknown, or if the provenance already contains the hash of the whole archive, the result is "".
        """
        return ""

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """Return the origin of the content, which the data card shows. Call `fetch` first."""

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return re.compile("|".join(_glob_regex(glob) for glob in self.files)) if self.files else None

    def chooses(self, path: str) -> bool:
        """Return whether a path matches the patterns in `files`."""
        return self._pattern is None or self._pattern.fullmatch(path) is not None


def _glob_regex(glob: str) -> str:
    """Convert a glob pattern to a regular expression.

    The wildcards `*` and `?` do not match "/", but `**` does. The pattern may start at any directory of the path.
    """
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob.lstrip("/"))
    return "(?:.*/)?" + "".join(pieces.get(part, re.escape(part)) for part in parts)
