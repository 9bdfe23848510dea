"""What every source has in common: its description, which of its files count, how text is made of them."""

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
        path: its name inside the source, with "/" between folders.
        size: bytes as stored (compressed, if the file is), for planning and progress.
        refused: why it is not even opened (an unsafe path, a device file); "" if it is.
        start: first byte of the part of the file that is meant.
        end: byte after that part; None is the file's end.
    """

    path: str
    size: int
    refused: str = ""
    start: int = 0
    end: int | None = None

    @property
    def part_size(self) -> int:
        """Stored bytes of the part that is meant."""
        return (self.size if self.end is None else self.end) - self.start


class SourceConfig(Config):
    """One source of text.

    Text of `json`, `jsonl`, `csv` and `parquet` files is made by four keys (all optional: without them the
    text column or the turns of a conversation are found by themselves). In paths, "." steps into a field and
    "*" into every element: `records = "data.*"` gives one document for each element of `data`; `each =
    "turns.*"` splits a record into parts; `text = "{title}: {body}"` is the template of a part; `join` stands
    between parts.
    """

    renamed: ClassVar[Mapping[str, str]] = {"licence": "license"}

    name: str = setting("", help="name in the data card and in every document; default: after the path or package")
    genre: str = setting("unspecified", help='kind of text, for the data card: "books", "encyclopedia", ...')
    license: str = setting("unknown", help="license of the text, for the data card")
    files: list[str] = setting(
        [],
        help='glob patterns of the files to read, e.g. "docs/**/*.md"; matched from the right, default: all',
    )
    format: Format | None = setting(None, help="read every file as this format; default: by its content")
    records: str | None = setting(None, help="path to the records of a JSON file, one document each")
    each: str | None = setting(None, help="path to the parts of a record (turns, paragraphs)")
    text: str | None = setting(None, help='template of the text, e.g. "{title}\\n\\n{body}"; or a column as "{column}"')
    join: str = setting("\n", help="what stands between the parts of a record")
    languages: list[str] | None = setting(None, help="of this source, keep only these languages; default: the corpus's")
    filters: list[str] | None = setting(None, help="rules for this source's documents; default: the corpus's")
    markup: Literal["none", "html"] = setting("none", help='"html": tags inside the records\' text are rendered')

    extraction: Literal["fast", "best"] = setting(
        "best",
        help='main text of web pages: "best" asks a slower extractor, too, where the fast one found no long text',
    )

    @field_validator("text")
    @classmethod
    def _has_a_field(cls, value: str | None) -> str | None:
        if value is not None and not FIELD.search(value):
            raise ValueError(f'a template names at least one field in braces, e.g. "{{{value or "text"}}}"')
        return value

    @property
    def label(self) -> str:
        """The name that documents carry."""
        return self.name or self.default_name

    @property
    @abstractmethod
    def default_name(self) -> str:
        """The name of a source whose user gave none."""

    @property
    def disk_ratio(self) -> float:
        """Bytes that are written for each stored byte that is read: a generous guess, to see beforehand if they fit."""
        return 2.0  # sorted runs and shards, both compressed

    @property
    def rules(self) -> RecordRules:
        """How the records of this source become text."""
        return RecordRules(
            self.records, self.each, self.text, self.join, self.markup == "html", extraction=self.extraction
        )

    @abstractmethod
    def identity(self) -> str:
        """A value that changes when the content does. Quick, and never uses the network."""

    @abstractmethod
    def fetch(self, console: Console) -> None:
        """Bring the content onto this machine, if it is not there already."""

    @abstractmethod
    def items(self) -> list[Item]:
        """All files that the patterns choose, in a fixed order. Call after `fetch`."""

    def parts(self, item: Item, size: int) -> list[Item]:
        """A file as parts of about `size` bytes, for several workers, if it is one that can be entered anywhere."""
        return [item]

    @abstractmethod
    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Give each item (a run of `items()`, in order) with the call that opens it for reading."""

    def digest(self, item: Item) -> str:
        """What tells this content of a file from another one, as "sha256:...", or "version:..." as its store has it.

        "" where nothing is known, or where the provenance has it: the hash of an archive is that of its members.
        """
        return ""

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """Where the content came from, for the data card. Call after `fetch`."""

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return re.compile("|".join(_glob_regex(glob) for glob in self.files)) if self.files else None

    def chooses(self, path: str) -> bool:
        """Whether the patterns choose a file of this name."""
        return self._pattern is None or self._pattern.fullmatch(path) is not None


def _glob_regex(glob: str) -> str:
    """`*` and `?` stay inside a folder, `**` crosses folders; the match may begin at any folder."""
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob.lstrip("/"))
    return "(?:.*/)?" + "".join(pieces.get(part, re.escape(part)) for part in parts)
