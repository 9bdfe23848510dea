"""Base class for sources: their settings, the selection of files, and how files become text."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, ClassVar, Literal

from pydantic import field_validator

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.corpus.records import FIELD, RecordRules

Format = Literal[
    "text", "markdown", "html", "json", "jsonl", "csv", "tsv", "parquet", "xlsx",
    "pdf", "docx", "odt", "epub", "email", "mbox", "chat", "wiki", "warc", "archive",
]  # fmt: skip
TEXT_FORMAT_NAMES = "text, Markdown, HTML, WARC and WET, PDF, DOCX, ODT, EPUB, mail, chat exports and wiki dumps"
TABLE_FORMAT_NAMES = "JSON, CSV, TSV, Parquet and Excel"
FORMAT_NAMES = f"{TEXT_FORMAT_NAMES}, {TABLE_FORMAT_NAMES}, and zip and tar archives of these"  # for messages
Opener = Callable[[], BinaryIO]
WEB_FILTERS = ["gopher_repetition", "gopher_quality", "c4", "fineweb"]  # in FineWeb's order


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a source: a file on disk, or a member of an archive.

    Attributes:
        path: Path inside the source, with "/" between directories.
        size: Stored (possibly compressed) size in bytes, for planning and progress.
        refused: Why the file is not opened, e.g. an unsafe path or a device file; "" if it may be opened.
        start: Offset of the first byte to read.
        end: Offset after the last byte to read; None means the end of the file.
    """

    path: str
    size: int
    refused: str = ""
    start: int = 0
    end: int | None = None

    @property
    def part_size(self) -> int:
        """Number of stored bytes from `start` to `end`."""
        return (self.size if self.end is None else self.end) - self.start


class SourceConfig(Config):
    """Base class for the sources of a recipe.

    Four optional keys describe the text of JSON, JSON Lines, CSV and Parquet files. By default the text column,
    or the turns of a conversation, are detected.

    - `records = "data.*"`: one document for each element of `data`.
    - `each = "turns.*"`: the parts of a record.
    - `text = "{title}: {body}"`: the template of a part.
    - `join`: the separator between parts.

    In paths, "." selects a field and "*" selects every element.
    """

    renamed: ClassVar[Mapping[str, str]] = {"licence": "license"}

    name: str = setting(
        "", help="name in the data card and in each document; default: derived from the path or package"
    )
    genre: str = setting("unspecified", help='genre, for the data card, e.g. "books", "encyclopedia"')
    license: str = setting("unknown", help="license of the text, for the data card")
    files: list[str] = setting(
        [],
        help='glob patterns of the files to read, e.g. "docs/**/*.md"; matched from the right; default: all files',
    )
    format: Format | None = setting(None, help="format of all files; default: detected from the content")
    records: str | None = setting(None, help="path to the records in a JSON file; each record becomes a document")
    each: str | None = setting(None, help="path to the parts of a record, e.g. turns or paragraphs")
    text: str | None = setting(
        None, help='template of the text, e.g. "{title}\\n\\n{body}"; for one column, "{column}"'
    )
    join: str = setting("\n", help="separator between the parts of a record")
    languages: list[str] | None = setting(None, help="languages to keep from this source; default: as for the corpus")
    filters: list[str] | None = setting(None, help="quality filters for this source; default: as for the corpus")
    markup: Literal["none", "html"] = setting("none", help='"html": render HTML tags in the text of records')

    extraction: Literal["fast", "best"] = setting(
        "best",
        help='main-text extraction for web pages; "best" adds a slower extractor if the fast one finds little text',
    )

    @field_validator("text")
    @classmethod
    def _has_a_field(cls, value: str | None) -> str | None:
        if value is not None and not FIELD.search(value):
            raise ValueError(f'a template needs at least one field in braces, e.g. "{{{value or "text"}}}"')
        return value

    @property
    def label(self) -> str:
        """The source name stored in each document."""
        return self.name or self.default_name

    @property
    @abstractmethod
    def default_name(self) -> str:
        """The default name."""

    @property
    def disk_ratio(self) -> float:
        """Upper estimate of bytes written per stored byte read, to check disk space first."""
        return 2.0  # compressed sorted runs, and compressed shards

    @property
    def rules(self) -> RecordRules:
        """How to convert the records of this source to text."""
        return RecordRules(
            self.records, self.each, self.text, self.join, self.markup == "html", extraction=self.extraction
        )

    @abstractmethod
    def identity(self) -> str:
        """Return a value that changes with the content, without network access."""

    @abstractmethod
    def fetch(self, console: Console) -> None:
        """Download the content, or list it, unless that is already done."""

    @abstractmethod
    def items(self) -> list[Item]:
        """Return the files that match the patterns, in a fixed order. Call `fetch` first."""

    def parts(self, item: Item, size: int) -> list[Item]:
        """Split a file into parts of about `size` bytes if its format allows starting anywhere."""
        return [item]

    @abstractmethod
    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Yield each item with a function that opens it. `items` is a slice of `items()`, in order."""

    def digest(self, item: Item) -> str:
        """Return "sha256:..." of a file, or "version:..." as reported by its store.

        The result is "" if neither is known, or if the provenance already has the hash of the whole archive.
        """
        return ""

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """Return the origin of the content, for the data card. Call `fetch` first."""

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return re.compile("|".join(_glob_regex(glob) for glob in self.files)) if self.files else None

    def chooses(self, path: str) -> bool:
        """Return whether a path matches the patterns."""
        return self._pattern is None or self._pattern.fullmatch(path) is not None


def _glob_regex(glob: str) -> str:
    """Compile a glob: `*` and `?` match within a directory, `**` across directories, from any directory on."""
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob.lstrip("/"))
    return "(?:.*/)?" + "".join(pieces.get(part, re.escape(part)) for part in parts)
