"""Paragraphs or lines that are in the corpus more than once: the first one stays, the others are cut out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from groundup.corpus.dedup.columns import U64, group_starts, read_column, write_columns
from groundup.corpus.dedup.portions import Portion, id_numbers
from groundup.corpus.dedup.resolve import near_duplicates_among
from groundup.types import Document

Unit = Literal["paragraph", "line"]
_BREAKS = {"paragraph": re.compile(r"\n{2,}"), "line": re.compile(r"\n")}
_JOINS = {"paragraph": "\n\n", "line": "\n"}
_BLANK_LINES = re.compile(r"\n{3,}")
_HASHES = 1 << 64
_PARTS = 256  # of the hashes, at most: as many maps may be open
_PART_DOCUMENTS = 1 << 16


def hashed(text: str, unit: Unit, min_characters: int) -> Iterator[tuple[str, int]]:
    """The paragraphs or lines of a text, each with its hash, in lower case and without regard to white space; or 0.

    0 is for what is shorter than `min_characters`.
    """
    for part in _BREAKS[unit].split(text):
        normal = " ".join(part.lower().split()) if len(part) >= min_characters else ""
        if len(normal) < min_characters:
            yield part, 0
        else:
            digest = hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            yield part, int.from_bytes(digest) or 1


@dataclass(frozen=True, slots=True)
class PassageTask:
    """Leave the hashes of the paragraphs or lines of a portion's documents, near-duplicates left out, by hash."""

    portion: Portion
    number: int
    unit: Unit
    min_characters: int
    directory: Path

    @property
    def label(self) -> str:
        """The portion."""
        return f"{self.unit}s of {self.portion.path.name}, row groups from {self.portion.groups[0]}"

    @property
    def table(self) -> Path:
        """Each hash and the first half of the document's id, by hash, then in the order of the documents."""
        return self.directory / f"passages-{self.number:06d}"

    def done(self) -> bool:
        """Whether they are there."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write them."""
        passages, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        gone = near_duplicates_among(self.directory, self.portion.first, self.portion.documents)
        for batch in self.portion.batches(("text", "id")):
            texts, ids = batch.column("text").to_pylist(), batch.column("id").to_pylist()
            found = [
                [] if id_ in gone else [each for _, each in hashed(text, self.unit, self.min_characters) if each]
                for text, id_ in zip(texts, ids, strict=True)
            ]
            counts = np.array([len(each) for each in found])
            passages.append(np.array([each for of_text in found for each in of_text], np.uint64))
            owners.append(np.repeat(id_numbers(ids)[:, 0].astype(np.uint64), counts))
        all_passages, all_owners = np.concatenate(passages), np.concatenate(owners)
        order = np.argsort(all_passages, kind="stable")
        columns = {"passages": all_passages[order], "owners": all_owners[order]}
        write_columns(self.table, [columns], columns)


def parts_of(documents: int) -> int:
    """In how many parts the hashes are looked through."""
    return min(_PARTS, -(-documents // _PART_DOCUMENTS)) or 1


@dataclass(frozen=True, slots=True)
class RepeatedTask:
    """Leave the hashes, of one part of them all, that are there more than once, with the document that keeps each."""

    passages: tuple[Path, ...]
    part: int
    parts: int
    directory: Path

    @property
    def label(self) -> str:
        """The part."""
        return f"repeated passages, part {self.part + 1} of {self.parts}"

    @property
    def table(self) -> Path:
        """Hashes, ascending, and the first half of the id of the document that keeps each."""
        return _repeated(self.directory, self.part)

    def done(self) -> bool:
        """Whether they are there."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write them."""
        bounds = np.array([max(0, -(-at * _HASHES // self.parts) - 1) for at in (self.part, self.part + 1)], np.uint64)
        passages, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for table in self.passages:
            column = read_column(table, "passages")
            start, stop = np.searchsorted(column, bounds, side="right")
            passages.append(column[start:stop])
            owners.append(read_column(table, "owners")[start:stop])
        hashes, keepers = np.concatenate(passages), np.concatenate(owners)
        order = np.argsort(hashes, kind="stable")
        hashes, keepers = hashes[order], keepers[order]
        first = group_starts(hashes)
        repeated = first & ~np.append(first[1:], True)
        columns = {"passages": hashes[repeated], "owners": keepers[repeated]}
        write_columns(self.table, [columns], columns)


def _repeated(directory: Path, part: int) -> Path:
    return directory / f"repeated-{part:04d}"


@lru_cache(maxsize=_PARTS)
def _mapped(table: Path) -> tuple[U64, U64]:
    return read_column(table, "passages"), read_column(table, "owners")


def without_repeats(document: Document, unit: Unit, min_characters: int, directory: Path, parts: int) -> Document:
    """The document without what an earlier one has, or itself further up; its id stays, as its place in the order."""
    own = int(document.id[:16], 16)
    seen: set[int] = set()
    kept = []
    passages = list(hashed(document.text, unit, min_characters))
    for passage, key in passages:
        owner = _owner(directory, parts, key) if key else None
        if owner is None or (owner == own and key not in seen):
            kept.append(passage)
        seen.add(key)
    if len(kept) == len(passages):
        return document
    return replace(document, text=_BLANK_LINES.sub("\n\n", _JOINS[unit].join(kept)).strip("\n"))


def _owner(directory: Path, parts: int, key: int) -> int | None:
    """The document that keeps a passage, or nothing if it is not repeated."""
    hashes, owners = _mapped(_repeated(directory, key * parts // _HASHES))
    at = int(np.searchsorted(hashes, np.uint64(key)))
    return int(owners[at]) if at < len(hashes) and int(hashes[at]) == key else None
