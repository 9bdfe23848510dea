"""The data card: the content of a corpus, its sources, and the numbers of dropped documents by reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from groundup.core.errors import DataError
from groundup.core.files import read_json
from groundup.core.pipeline import wrong_input_error
from groundup.core.types import Document
from groundup.corpus.drop_log import DropRecord

FORMAT_VERSION = 1
CARD = "card.json"
_NUM_SAMPLES = 3  # number of dropped documents to show per source and reason


@dataclass(slots=True)
class Drops:
    """Counts of the documents that one step dropped for one reason.

    Attributes:
        step: Name of the step.
        documents: Number of documents.
        bytes: Bytes of text.
        samples: Hash, origin and beginning of the dropped documents with the smallest hashes, which are an unbiased
            sample.
    """

    step: str
    documents: int = 0
    bytes: int = 0
    samples: list[tuple[str, str, str]] = field(default_factory=list)

    def merge(self, other: Drops) -> None:
        """Add other drops."""
        self.documents += other.documents
        self.bytes += other.bytes
        self.samples = sorted(self.samples + other.samples)[:_NUM_SAMPLES]


@dataclass(slots=True)
class Tally:
    """Counts of the documents of a source, or of some of its files. Counts can be added in any order.

    Attributes:
        files: Number of files that were opened.
        documents: Number of documents that were kept.
        bytes: Bytes of text that were kept.
        drops: Counts of dropped documents, keyed by reason.
        fields: Number of records, keyed by the field that contains their text.
        cut: Bytes that a step removed from kept documents, such as menu lines or masked secrets, keyed by step.
        masked: Number of masked values, keyed by kind.
        languages: Number of documents and bytes that were kept, keyed by language.
        lengths: Histogram of the sizes of kept documents. Each key is the lower bound of a histogram bin in bytes,
            which is a power of two.
        dates: First and last date of the kept documents in ISO 8601, or empty strings if no date is known.
    """

    files: int = 0
    documents: int = 0
    bytes: int = 0
    drops: dict[str, Drops] = field(default_factory=dict)
    fields: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    languages: dict[str, list[int]] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)
    dates: tuple[str, str] = ("", "")

    def keep(self, document: Document) -> None:
        """Add a kept document to the counts."""
        size = len(document.text.encode())
        self.documents += 1
        self.bytes += size
        self.lengths[1 << max(0, size.bit_length() - 1)] += 1
        if document.language:
            self._count_language(document.language, 1, size)
        self._extend_dates(document.date, document.date)

    def _extend_dates(self, first: str, last: str) -> None:
        if first:
            self.dates = (min(self.dates[0] or first, first), max(self.dates[1], last))

    def _count_language(self, language: str, documents: int, size: int) -> None:
        counts = self.languages.setdefault(language, [0, 0])
        counts[0] += documents
        counts[1] += size

    def drop(self, record: DropRecord) -> None:
        """Add a dropped document, or a file that contains no text, to the counts."""
        shown = record.beginning.encode("utf-8", "replace").decode()  # dropped text may be invalid Unicode
        digest = hashlib.blake2b(f"{record.origin}\0{shown}".encode("utf-8", "replace"), digest_size=8).hexdigest()
        self._add_drops(record.reason, Drops(record.step, 1, record.bytes, [(digest, record.origin, shown)]))

    def _add_drops(self, reason: str, drops: Drops) -> None:
        self.drops.setdefault(reason, Drops(drops.step)).merge(drops)

    def merge(self, other: Tally) -> None:
        """Add other counts."""
        self.files += other.files
        self.documents += other.documents
        self.bytes += other.bytes
        self.fields.update(other.fields)
        self.cut.update(other.cut)
        self.masked.update(other.masked)
        self.lengths.update(other.lengths)
        for language, (documents, size) in other.languages.items():
            self._count_language(language, documents, size)
        self._extend_dates(*other.dates)
        for reason, drops in other.drops.items():
            self._add_drops(reason, drops)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values, sorted by decreasing count."""
        ordered = sorted(self.drops.items(), key=lambda pair: (-pair[1].documents, pair[0]))
        return {
            "files": self.files,
            "documents": self.documents,
            "bytes": self.bytes,
            "drops": {
                r: {"step": d.step, "documents": d.documents, "bytes": d.bytes, "samples": d.samples}
                for r, d in ordered
            },
            "fields": _largest_first(self.fields),
            "cut": _largest_first(self.cut),
            "masked": _largest_first(self.masked),
            "languages": dict(sorted(self.languages.items(), key=lambda pair: (-pair[1][1], pair[0]))),
            "lengths": {str(size): self.lengths[size] for size in sorted(self.lengths)},
            "dates": self.dates,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Create a tally from the result of `to_json`."""
        drops = {
            reason: Drops(d.get("step", ""), d["documents"], d["bytes"], [tuple(sample) for sample in d["samples"]])
            for reason, d in value["drops"].items()
        }
        return cls(
            files=value["files"],
            documents=value["documents"],
            bytes=value["bytes"],
            drops=drops,
            fields=Counter(value.get("fields", {})),
            cut=Counter(value.get("cut", {})),
            masked=Counter(value.get("masked", {})),
            languages={language: list(counts) for language, counts in value.get("languages", {}).items()},
            lengths=Counter({int(size): count for size, count in value.get("lengths", {}).items()}),
            dates=tuple(value.get("dates", ("", ""))),
        )


def _largest_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of several tallies."""
    result = Tally()
    for tally in tallies:
        result.merge(tally)
    return result


def read_card(directory: Path) -> dict[str, Any]:
    """Read the data card of a corpus.

    Returns:
        The values of card.json: the numbers of documents and bytes in `train` and `validation`, the lists `sources` and
        `steps`, and the reports of some steps.

    Raises:
        DataError: The directory has no data card, or a newer version of groundup wrote the data card.
    """
    path = directory / CARD
    if not path.is_file():
        raise wrong_input_error(directory, "collect") or DataError(
            f"{directory}: no {CARD}",
            rule="the directory is not a corpus",
            fix="Give the directory that `groundup collect` wrote.",
        )
    card: dict[str, Any] = read_json(path)
    if card.get("format_version", 0) > FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version {card['format_version']}",
            rule=f"this version of groundup can only read format_version {FORMAT_VERSION} or lower",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    return card
