"""The data card: what is in a corpus, where it came from, what was dropped and why."""

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
_SAMPLES = 3  # rejects shown for each source and reason


@dataclass(slots=True)
class Drops:
    """What was dropped for one reason at one step: counts, and rejects with the smallest hashes as a fair sample."""

    step: str
    documents: int = 0
    bytes: int = 0
    samples: list[tuple[str, str, str]] = field(default_factory=list)  # (hash, origin, beginning of the text)

    def merge(self, other: Drops) -> None:
        """Add the counts of another part of the corpus."""
        self.documents += other.documents
        self.bytes += other.bytes
        self.samples = sorted(self.samples + other.samples)[:_SAMPLES]


@dataclass(slots=True)
class Tally:
    """Counts of one source, or of a part of one. Sums do not depend on the order of the parts.

    Attributes:
        files: that were opened.
        documents: that stay, of `bytes` of text in all.
        drops: by reason.
        fields: path to the text of a record, where it was found -> records.
        cut: step -> bytes that it took out of documents that went on (lines of menus, masked secrets).
        masked: kind of secret or personal data -> how many were masked.
        languages: language -> [documents, bytes] that stay.
        lengths: power of two -> documents that stay whose bytes of text are at least that, and less than twice that.
        dates: the first and the last of those that stay, in ISO 8601; ("", "") where none is known.
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
        """Count a document that stays."""
        size = len(document.text.encode())
        self.documents += 1
        self.bytes += size
        self.lengths[1 << max(0, size.bit_length() - 1)] += 1
        if document.language:
            self._speak(document.language, 1, size)
        self._date(document.date, document.date)

    def _date(self, first: str, last: str) -> None:
        if first:
            self.dates = (min(self.dates[0] or first, first), max(self.dates[1], last))

    def _speak(self, language: str, documents: int, size: int) -> None:
        counts = self.languages.setdefault(language, [0, 0])
        counts[0] += documents
        counts[1] += size

    def drop(self, fate: DropRecord) -> None:
        """Count a document, or a file that gave none."""
        shown = fate.beginning.encode("utf-8", "replace").decode()  # rejects may be no valid Unicode
        mark = hashlib.blake2b(f"{fate.origin}\0{shown}".encode("utf-8", "replace"), digest_size=8).hexdigest()
        self._dropped(fate.reason, Drops(fate.step, 1, fate.bytes, [(mark, fate.origin, shown)]))

    def _dropped(self, reason: str, drops: Drops) -> None:
        self.drops.setdefault(reason, Drops(drops.step)).merge(drops)

    def merge(self, other: Tally) -> None:
        """Add the counts of another part."""
        self.files += other.files
        self.documents += other.documents
        self.bytes += other.bytes
        self.fields.update(other.fields)
        self.cut.update(other.cut)
        self.masked.update(other.masked)
        self.lengths.update(other.lengths)
        for language, (documents, size) in other.languages.items():
            self._speak(language, documents, size)
        self._date(*other.dates)
        for reason, drops in other.drops.items():
            self._dropped(reason, drops)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, what is most first."""
        ordered = sorted(self.drops.items(), key=lambda pair: (-pair[1].documents, pair[0]))
        return {
            "files": self.files,
            "documents": self.documents,
            "bytes": self.bytes,
            "drops": {
                r: {"step": d.step, "documents": d.documents, "bytes": d.bytes, "samples": d.samples}
                for r, d in ordered
            },
            "fields": _most_first(self.fields),
            "cut": _most_first(self.cut),
            "masked": _most_first(self.masked),
            "languages": dict(sorted(self.languages.items(), key=lambda pair: (-pair[1][1], pair[0]))),
            "lengths": {str(size): self.lengths[size] for size in sorted(self.lengths)},
            "dates": self.dates,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
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


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies."""
    result = Tally()
    for tally in tallies:
        result.merge(tally)
    return result


def read_card(directory: Path) -> dict[str, Any]:
    """Read the card of a corpus: `sources`, `train`, `validation`, each with documents and bytes.

    Raises:
        DataError: there is none, or it was written by a newer release.
    """
    path = directory / CARD
    if not path.is_file():
        raise wrong_input_error(directory, "collect") or DataError(
            f"{directory}: no {CARD}",
            rule="a corpus directory holds a data card",
            fix="Give the directory that `groundup collect` wrote.",
        )
    card: dict[str, Any] = read_json(path)
    if card.get("format_version", 0) > FORMAT_VERSION:
        raise DataError(
            f"{path}: format_version {card['format_version']}",
            rule=f"this release reads up to {FORMAT_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    for source in card.get("sources", []):
        if "licence" in source:  # the key of earlier releases
            source["license"] = source.pop("licence")
    return card
