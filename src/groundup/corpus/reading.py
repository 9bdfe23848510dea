"""The first step of the pipeline: a few files of one source to runs of clean documents, sorted by hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path

from groundup.core.redact import redacted
from groundup.core.types import Document, text_id
from groundup.corpus.card import Tally
from groundup.corpus.drop_log import BEGINNING, DropLogWriter, DropRecord, beginning, drop_record
from groundup.corpus.formats import Extracted, Unreadable, extract
from groundup.corpus.manifest import SourceFile
from groundup.corpus.markers import read_marker, write_marker
from groundup.corpus.privacy import Masker
from groundup.corpus.rows import RowWriter, rows_file
from groundup.corpus.settings import CorpusSettings
from groundup.corpus.shards import write_run
from groundup.corpus.sources import Item, SourceConfig
from groundup.corpus.steps import Drop, NamedStep, with_text
from groundup.corpus.text import clean_text, split_text

UNIT_BYTES = 2 << 20  # a unit is about this much, so that thousands of small files make few tasks, and a large one many
RUN_BYTES = 64 << 20  # text sorted in memory at a time

READING, LENGTH, PRIVACY = "reading", "length", "privacy"  # the steps of every corpus, around those of the recipe


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Read a few files of one source, clean them, and take each document through the steps."""

    source: SourceConfig
    items: tuple[Item, ...]
    settings: CorpusSettings
    steps: tuple[NamedStep, ...]
    directory: Path
    number: int

    @property
    def label(self) -> str:
        """Source and first file."""
        return f"{self.source.label}: {self.items[0].path}"

    @property
    def size(self) -> int:
        """Stored bytes of the files."""
        return sum(item.part_size for item in self.items)

    @property
    def marker(self) -> Path:
        """The counts, written last."""
        return self.directory / f"read-{self._name}.json"

    @property
    def drop_log(self) -> Path:
        """Where its drops are written down."""
        return self.directory / f"read-{self._name}.parquet"

    @property
    def manifest(self) -> Path:
        """Where its files are written down."""
        return self.directory / f"files-{self._name}.parquet"

    @property
    def _name(self) -> str:
        """Of this work: what another listing of the source left is not taken for it."""
        return f"{self.number:06d}-{text_id(repr((self.source.label, self.items)))[:12]}"

    def done(self) -> bool:
        """Whether the counts are there."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write sorted runs of clean documents, the ledger and the manifest, then the counts."""
        tally, runs = Tally(), 0
        pending: list[Document] = []
        pending_bytes = 0
        with rows_file(self.drop_log, DropRecord) as drop_log, rows_file(self.manifest, SourceFile) as manifest:
            for document in self._documents(tally, drop_log, manifest):
                pending.append(document)
                pending_bytes += len(document.text)
                if pending_bytes >= RUN_BYTES:
                    self._write_run(runs, pending)
                    runs, pending, pending_bytes = runs + 1, [], 0
        if pending:
            self._write_run(runs, pending)
            runs += 1
        outputs = [self.drop_log, self.manifest, *map(self._run_path, range(runs))]
        counts = {"runs": runs, "source": self.source.label, "tally": tally.to_json()}
        write_marker(self.marker, outputs, counts)

    def runs(self) -> list[Path]:
        """The runs that a finished task left."""
        return [self._run_path(number) for number in range(read_marker(self.marker)["runs"])]

    def _write_run(self, number: int, documents: list[Document]) -> None:
        write_run(self._run_path(number), sorted(documents, key=attrgetter("id")))

    def _run_path(self, number: int) -> Path:
        return self.directory / f"run-{self._name}-{number:04d}.parquet"

    def _documents(self, tally: Tally, drop_log: DropLogWriter, manifest: RowWriter[SourceFile]) -> Iterator[Document]:
        masker = Masker(self.settings.privacy)
        book = _Book(self.source.label, tally, drop_log, masker)
        last: NamedStep = (PRIVACY, _Masking(masker, tally))  # filters see the text as it was written
        for item, opener in self.source.open_items(self.items):
            if item.start == 0:  # else another task has the file's first part, and counts it
                tally.files += 1
                manifest.add(SourceFile(self.source.label, item.path, item.size, self.source.digest(item)))
            for found in extract(item, opener, self.source.rules, self.source.format):
                if isinstance(found, Unreadable):
                    book.fail(found)
                    continue
                if found.field:
                    tally.fields[found.field] += 1
                yield from self._pieces(found, [*self.steps, last], book)

    def _pieces(self, found: Extracted, steps: Sequence[NamedStep], book: _Book) -> Iterator[Document]:
        pieces = list(split_text(clean_text(found.text), self.settings.max_document_bytes))
        name, url = redacted(found.origin), redacted(found.url)
        for number, text in enumerate(pieces, start=1):
            origin = f"{name}/{number}" if len(pieces) > 1 else name
            document = Document(text=text, source=self.source.label, origin=origin, url=url, date=found.date)
            step, outcome = self._through_steps(document, steps, book.tally)
            if isinstance(outcome, Drop):
                book.drop(step, outcome, document)
            else:
                book.tally.keep(outcome)
                yield outcome

    def _through_steps(
        self, document: Document, steps: Sequence[NamedStep], tally: Tally
    ) -> tuple[str, Document | Drop]:
        """The step that was the last one, and the document as it left it, or why that dropped it."""
        if too_short := self._too_short(document):
            return LENGTH, too_short
        whole = document
        for name, step in steps:
            outcome = step(document)
            if isinstance(outcome, Drop):
                return name, outcome
            if outcome.text is not document.text:
                tally.cut[name] += len(document.text.encode()) - len(outcome.text.encode())
            document = outcome
        if document.text is not whole.text and (too_short := self._too_short(document)):
            return LENGTH, too_short
        return "", document

    def _too_short(self, document: Document) -> Drop | None:
        least = self.settings.min_document_bytes
        if len(document.text) >= least or (size := len(document.text.encode())) >= least:
            return None
        return Drop("too short", f"{size} bytes, at least {least}")


@dataclass(frozen=True, slots=True)
class _Masking:
    """The step that masks personal data and secrets, and counts them."""

    masker: Masker
    tally: Tally

    def __call__(self, document: Document) -> Document:
        masked = self.masker.mask(document.text)
        self.tally.masked.update(masked.counts)
        return with_text(document, masked.text)


@dataclass(frozen=True, slots=True)
class _Book:
    """Where drops are counted, and written down one by one; what is shown of a text is masked, too."""

    source: str
    tally: Tally
    drop_log: DropLogWriter
    masker: Masker

    def fail(self, file: Unreadable) -> None:
        """Note a file, or a record of one, that gave no text."""
        size = len(file.sample.encode("utf-8", "replace"))
        self._note(
            DropRecord(self.source, file.origin, READING, file.reason, bytes=size, beginning=self._shown(file.sample))
        )

    def drop(self, step: str, why: Drop, document: Document) -> None:
        """Note a document that a step dropped."""
        self._note(drop_record(document, step, why, shown=self._shown(document.text)))

    def _note(self, fate: DropRecord) -> None:
        self.tally.drop(fate)
        self.drop_log.add(fate)

    def _shown(self, text: str) -> str:
        # More is looked at than is shown, so that no half of a secret is left at the end.
        return beginning(self.masker.mask(text[: 4 * BEGINNING]).text)


def units(source: SourceConfig) -> Iterator[tuple[Item, ...]]:
    """Group a source's files, or parts of them, in order, into units of at least `UNIT_BYTES`."""
    unit: list[Item] = []
    size = 0
    for item in chain.from_iterable(source.parts(item, UNIT_BYTES) for item in source.items()):
        unit.append(item)
        size += item.part_size
        if size >= UNIT_BYTES:
            yield tuple(unit)
            unit, size = [], 0
    if unit:
        yield tuple(unit)
