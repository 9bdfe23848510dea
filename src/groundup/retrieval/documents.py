"""The documents of an index: their extraction from a folder or a corpus, and their Arrow file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.artifact import ARTIFACT, read
from groundup.core.types import text_id, well_formed
from groundup.corpus.formats import Extracted, Unreadable, extract
from groundup.corpus.language import identify
from groundup.corpus.shards import naming_damaged_shard, read_range, required_shards, shard_paths
from groundup.corpus.sources import FolderSource, Item
from groundup.corpus.text import clean_text
from groundup.retrieval.passages import title_of

DOCUMENTS = "documents.arrow"
_BATCH_CHARACTERS = 4_000_000


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """A document of an index.

    Attributes:
        file: File that contains the document, relative to the folder, or the shard of a corpus.
        origin: File and place inside it, such as "mail.mbox#3".
        text: Cleaned text. The positions of passages refer to it.
        pages: Offsets in the text at which the pages start, or () if the format has no pages.
        url: URL of the document, or "".
        title: First heading, or "".
        language: ISO 639 code of the language, or "und".
    """

    file: str
    origin: str
    text: str
    pages: tuple[int, ...] = ()
    url: str = ""
    title: str = ""
    language: str = "und"

    @property
    def id(self) -> str:
        """Digest of the text."""
        return text_id(self.text)

    def page(self, at: int) -> int | None:
        """Return the number of the page that contains an offset, from 1. None if the document has no pages."""
        return max(bisect_right(self.pages, at), 1) if self.pages else None


@dataclass(frozen=True, slots=True)
class FileState:
    """A file at the time of its extraction. A file with another size or modification time is extracted again.

    Attributes:
        size: Size in bytes.
        modified: Modification time in nanoseconds.
        problems: Reasons why the file, or texts inside it, could not be read.
    """

    size: int
    modified: int
    problems: tuple[str, ...] = ()


def corpus_of(path: Path) -> Path | None:
    """Return the corpus at a path: the output of `groundup collect`, or the corpus of a run. None for other folders."""
    for directory in (path, path / "corpus"):
        if (directory / ARTIFACT).is_file() and read(directory).stage == "collect":
            return directory
    return None


def corpus_documents(corpus: Path) -> Iterator[IndexedDocument]:
    """Yield the documents of a corpus. A document that a mixture repeats is yielded once.

    Args:
        corpus: Output directory of `groundup collect`.

    Raises:
        DataError: The corpus has no shards.
        FormatError: A shard is damaged.
    """
    for path in [*required_shards(corpus, "train"), *shard_paths(corpus, "validation")]:
        last = ""
        with naming_damaged_shard(path):
            for found in read_range(path):
                if found.id != last:
                    language = found.language or identify(found.text)[0]
                    yield IndexedDocument(
                        path.name, found.origin, found.text, (), found.url, title_of(found.text), language
                    )
                last = found.id


def file_state(source: FolderSource, item: Item) -> FileState:
    """Return the state of a file, without problems."""
    path = source.path if source.path.is_file() else source.path / item.path
    try:
        status = path.stat()
    except OSError:
        return FileState(item.size, 0)
    return FileState(status.st_size, status.st_mtime_ns)


def extract_file(source: FolderSource, item: Item) -> tuple[list[IndexedDocument], tuple[str, ...]]:
    """Extract the documents of a file.

    Args:
        source: The folder.
        item: The file.

    Returns:
        The documents, and the reasons why the file or texts inside it could not be read.
    """
    found: list[IndexedDocument] = []
    problems: list[str] = []
    (_, opener), *_ = source.open_items([item])
    for each in extract(item, opener, source.record_options, source.format):
        if isinstance(each, Unreadable):
            problems.append(each.reason if each.origin == item.path else f"{each.origin}: {each.reason}")
        elif (document := _cleaned(item, each)).text.strip():
            found.append(document)
    if not found and not problems:
        problems.append("no text")
    return found, tuple(problems)


def _cleaned(item: Item, found: Extracted) -> IndexedDocument:
    """Clean a text page by page, so that the pages keep their positions."""
    bounds = [*found.pages, len(found.text)] if found.pages else [0, len(found.text)]
    pages, text = [], ""
    for number, start in enumerate(bounds[:-1]):
        raw = found.text[start : bounds[number + 1]]
        part = clean_text(well_formed(raw))
        if text and part:  # cleaning removes the white space between two pages
            text += "" if found.text[start - 1 : start].strip() and raw[:1].strip() else _gap(found.text, start)
        pages.append(len(text))
        text += part
    file = item.path.encode("utf-8", "replace").decode()
    kept = tuple(pages) if found.pages else ()
    return IndexedDocument(file, found.origin, text, kept, found.url, title_of(text), identify(text)[0])


def _gap(text: str, start: int) -> str:
    before = text[:start]
    return "\n\n" if before.endswith("\n\n") else "\n" if before.endswith("\n") else " "


class DocumentWriter:
    """A writer of the documents of an index to an uncompressed Arrow file, which is memory-mapped when it is read."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._schema = _schema()
        self._writer = pa.ipc.new_file(path, self._schema)
        self._rows: list[IndexedDocument] = []
        self._pending = 0

    def add(self, document: IndexedDocument) -> None:
        """Append a document."""
        self._rows.append(document)
        self._pending += len(document.text)
        if self._pending >= _BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: [getattr(row, name) for row in self._rows] for name in self._schema.names}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows, self._pending = [], 0

    def close(self) -> None:
        """Write the pending documents, and close the file."""
        if self._rows:
            self._flush()
        self._writer.close()


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"text": pa.large_string(), "pages": pa.list_(pa.int32())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in IndexedDocument.__slots__])


class Documents:
    """The documents in an Arrow file. Only those that are used are read into memory.

    Args:
        path: The Arrow file.

    Raises:
        FormatError: The file is not an Arrow file of documents.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        from groundup.core.errors import FormatError

        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{path}: {error}", fix="Delete the index and run groundup index again.") from error
        if self._table.schema != _schema():
            raise FormatError(f"{path}: other columns than documents have", fix="Run groundup index again.")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, number: int) -> IndexedDocument:
        row = self._table.slice(number, 1).to_pylist()[0]
        return IndexedDocument(**row | {"pages": tuple(row["pages"])})

    def __iter__(self) -> Iterator[IndexedDocument]:
        return (self[number] for number in range(len(self)))

    def of_files(self) -> dict[str, list[int]]:
        """Return the numbers of the documents of each file."""
        found: dict[str, list[int]] = {}
        for number, name in enumerate(self._table["file"].to_pylist()):
            found.setdefault(name, []).append(number)
        return found


def problem_lines(files: dict[str, FileState]) -> list[str]:
    """Return a line for each problem of the files."""
    return [f"{name}: {problem}" for name, state in files.items() for problem in state.problems]
