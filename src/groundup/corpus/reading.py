"""The first step of `groundup collect`: read source files and write sorted runs of cleaned documents."""

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

UNIT_BYTES = 2 << 20  # approximate input size of a task; small files are grouped, and large files are split
RUN_BYTES = 64 << 20  # maximum size of the text that is sorted in memory

# Steps that are applied in every corpus, in addition to the steps that the recipe selects.
READING, LENGTH, PRIVACY = "reading", "length", "privacy"


@dataclass(frozen=True, slots=True)
class ReadTask:
    """A task that reads a few files of one source, cleans the documents and applies the steps."""

    source: SourceConfig
    items: tuple[Item, ...]
    settings: CorpusSettings
    steps: tuple[NamedStep, ...]
    directory: Path
    number: int

    @property
    def label(self) -> str:
        """Label for the progress display, with the name of the source and the first file."""
        return f"{self.source.label}: {self.items[0].path}"

    @property
    def size(self) -> int:
        """Total size of the files, or parts of files, in bytes."""
        return sum(item.part_size for item in self.items)

    @property
    def marker(self) -> Path:
        """Path of the marker with the document counts, which the task writes after all other files."""
        return self.directory / f"read-{self._name}.json"

    @property
    def drop_log(self) -> Path:
        """Path of the drop log of this task."""
        return self.directory / f"read-{self._name}.parquet"

    @property
    def manifest(self) -> Path:
        """Path of the manifest of the files that this task reads."""
        return self.directory / f"files-{self._name}.parquet"

    @property
    def _name(self) -> str:
        """Name of the task, with a hash of its files. If the files of a source change, old results are not reused."""
        return f"{self.number:06d}-{text_id(repr((self.source.label, self.items)))[:12]}"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write sorted runs of cleaned documents, the drop log and the manifest, and then the marker."""
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
        """Return the paths of the runs that this task wrote. The task must already be finished."""
        return [self._run_path(number) for number in range(read_marker(self.marker)["runs"])]

    def _write_run(self, number: int, documents: list[Document]) -> None:
        write_run(self._run_path(number), sorted(documents, key=attrgetter("id")))

    def _run_path(self, number: int) -> Path:
        return self.directory / f"run-{self._name}-{number:04d}.parquet"

    def _documents(self, tally: Tally, drop_log: DropLogWriter, manifest: RowWriter[SourceFile]) -> Iterator[Document]:
        masker = Masker(self.settings.privacy)
        recorder = _DropRecorder(self.source.label, tally, drop_log, masker)
        # Masking is the last step, so that the filters process the original text.
        last: NamedStep = (PRIVACY, _Masking(masker, tally))
        for item, opener in self.source.open_items(self.items):
            if item.start == 0:  # A file that is split into parts is counted by the task that reads the first part.
                tally.files += 1
                manifest.add(SourceFile(self.source.label, item.path, item.size, self.source.digest(item)))
            for found in extract(item, opener, self.source.record_options, self.source.format):
                if isinstance(found, Unreadable):
                    recorder.fail(found)
                    continue
                if found.field:
                    tally.fields[found.field] += 1
                yield from self._pieces(found, [*self.steps, last], recorder)

    def _pieces(self, found: Extracted, steps: Sequence[NamedStep], recorder: _DropRecorder) -> Iterator[Document]:
        pieces = list(split_text(clean_text(found.text), self.settings.max_document_bytes))
        name, url = redacted(found.origin), redacted(found.url)
        for number, text in enumerate(pieces, start=1):
            origin = f"{name}/{number}" if len(pieces) > 1 else name
            document = Document(text=text, source=self.source.label, origin=origin, url=url, date=found.date)
            step, outcome = self._through_steps(document, steps, recorder.tally)
            if isinstance(outcome, Drop):
                recorder.drop(step, outcome, document)
            else:
                recorder.tally.keep(outcome)
                yield outcome

    def _through_steps(
        self, document: Document, steps: Sequence[NamedStep], tally: Tally
    ) -> tuple[str, Document | Drop]:
        """Apply the steps to a document.

        Return "" and the document, or the name of the step that dropped it and a `Drop` with the reason.
        """
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
        minimum = self.settings.min_document_bytes
        if len(document.text) >= minimum or (size := len(document.text.encode())) >= minimum:
            return None
        return Drop("too short", f"{size} bytes, minimum {minimum}")


@dataclass(frozen=True, slots=True)
class _Masking:
    """The step that masks and counts personal data and secrets."""

    masker: Masker
    tally: Tally

    def __call__(self, document: Document) -> Document:
        masked = self.masker.mask(document.text)
        self.tally.masked.update(masked.counts)
        return with_text(document, masked.text)


@dataclass(frozen=True, slots=True)
class _DropRecorder:
    """Counts dropped documents, and writes them to the drop log with the beginning of their masked text."""

    source: str
    tally: Tally
    drop_log: DropLogWriter
    masker: Masker

    def fail(self, file: Unreadable) -> None:
        """Record a file or a table row from which no text could be read."""
        size = len(file.sample.encode("utf-8", "replace"))
        self._record(
            DropRecord(self.source, file.origin, READING, file.reason, bytes=size, beginning=self._shown(file.sample))
        )

    def drop(self, step: str, why: Drop, document: Document) -> None:
        """Record a document that a step dropped."""
        self._record(drop_record(document, step, why, shown=self._shown(document.text)))

    def _record(self, drop: DropRecord) -> None:
        self.tally.drop(drop)
        self.drop_log.add(drop)

    def _shown(self, text: str) -> str:
        # More text is masked than is shown, because a secret that is truncated at the end may not be recognized.
        return beginning(self.masker.mask(text[: 4 * BEGINNING]).text)


def units(source: SourceConfig) -> Iterator[tuple[Item, ...]]:
    """Yield groups of consecutive files or parts of files.

    The total size of each group, except the last, is at least `UNIT_BYTES`.
    """
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
