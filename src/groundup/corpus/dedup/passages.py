"""Passages that are in the corpus more than once: the first one stays, the others are cut out.

A passage is a paragraph, a line, or any stretch of words of a given length. Of the last every window is hashed, so that
what is cut is what a suffix array of the whole corpus would find (Lee et al. 2022, arXiv 2107.06499), to the word; but
hashes can be sorted by parts, in bounded memory, where a suffix array must hold all text and five times its size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from groundup.core.types import Document
from groundup.corpus.dedup.columns import U64, group_starts, read_column, write_columns
from groundup.corpus.dedup.partitions import Partition, id_numbers
from groundup.corpus.dedup.resolve import near_duplicates_among
from groundup.corpus.dedup.settings import RepeatedTextSettings
from groundup.corpus.dedup.shingles import hash_ngrams

_BREAKS = {"paragraph": re.compile(r"\n{2,}"), "line": re.compile(r"\n+")}
_UNSPACED = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")  # in scripts without spaces each character is one
_BLANK_LINES = re.compile(r"\n{3,}")
_BYTES = {"paragraph": 200, "line": 60, "span": 6}  # of text that bring one hash, about
_HASHES = 1 << 64
_MAX_PARTS = 256  # of the hashes, at most: as many maps may be open
_PART_HASHES = 1 << 20  # in one part; some 50 bytes each are in memory

Passage = tuple[int, int, int]  # where it begins and ends in its text, and its hash


def passages(text: str, settings: RepeatedTextSettings) -> list[Passage]:
    """The passages of a text that are long enough, in order. Case and the kind of white space do not matter."""
    return _spans(text, settings.min_words) if settings.unit == "span" else list(_parts(text, settings))


def _parts(text: str, settings: RepeatedTextSettings) -> Iterator[Passage]:
    breaks = ((found.start(), found.end()) for found in _BREAKS[settings.unit].finditer(text))
    start = 0
    for end, following in chain(breaks, [(len(text), len(text))]):
        if end - start >= settings.min_characters:
            normal = " ".join(text[start:end].lower().split())
            if len(normal) >= settings.min_characters:
                yield start, following, _hash(normal)
        start = following


def _spans(text: str, words: int) -> list[Passage]:
    found = [(word.start(), word.end(), _hash_word(word[0].lower())) for word in _WORD.finditer(text)]
    if len(found) < words:
        return []
    starts, ends, hashes = zip(*found, strict=True)
    keys = hash_ngrams(np.array(hashes, np.uint64), words).tolist()
    return list(zip(starts, ends[words - 1 :], keys, strict=False))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


_hash_word = lru_cache(maxsize=1 << 16)(_hash)


@dataclass(frozen=True, slots=True)
class PassageTask:
    """Leave the hashes of the passages of a portion's documents, without near-duplicates, by hash."""

    partition: Partition
    number: int
    settings: RepeatedTextSettings
    directory: Path

    @property
    def label(self) -> str:
        """The portion."""
        return f"{self.settings.unit}s of {self.partition.path.name}, row groups from {self.partition.groups[0]}"

    @property
    def table(self) -> Path:
        """Each hash and the first half of the document's id, by hash, then in the order of the documents."""
        return self.directory / f"passages-{self.number:06d}"

    def done(self) -> bool:
        """Whether they are there."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write them."""
        keys, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        gone = near_duplicates_among(self.directory, self.partition.first, self.partition.documents)
        for batch in self.partition.batches(("text", "id")):
            texts, ids = batch.column("text").to_pylist(), batch.column("id").to_pylist()
            found = [
                [] if id_ in gone else [key for _, _, key in passages(text, self.settings)]
                for text, id_ in zip(texts, ids, strict=True)
            ]
            keys.append(np.array([key for of_text in found for key in of_text], np.uint64))
            owners.append(np.repeat(id_numbers(ids)[:, 0].astype(np.uint64), [len(of_text) for of_text in found]))
        all_keys, all_owners = np.concatenate(keys), np.concatenate(owners)
        order = np.argsort(all_keys, kind="stable")
        columns = {"passages": all_keys[order], "owners": all_owners[order]}
        write_columns(self.table, [columns], columns)


def num_parts(text_bytes: int, settings: RepeatedTextSettings) -> int:
    """In how many parts the hashes of so much text are looked through."""
    return min(_MAX_PARTS, 1 + text_bytes // _BYTES[settings.unit] // _PART_HASHES)


def _bounds(parts: int) -> U64:
    """The first hash of each part."""
    return np.array([-(-part * _HASHES // parts) for part in range(parts)], np.uint64)


@dataclass(frozen=True, slots=True)
class RepeatedPassageTask:
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
        bounds = _bounds(self.parts)[self.part : self.part + 2]
        keys, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for table in self.passages:
            column = read_column(table, "passages")
            start, stop = [*np.searchsorted(column, bounds).tolist(), len(column)][:2]
            keys.append(column[start:stop])
            owners.append(read_column(table, "owners")[start:stop])
        all_keys, all_owners = np.concatenate(keys), np.concatenate(owners)
        order = np.argsort(all_keys, kind="stable")
        all_keys = all_keys[order]
        first = group_starts(all_keys)
        repeated = first & ~np.append(first[1:], True)
        columns = {"passages": all_keys[repeated], "owners": all_owners[order[repeated]]}
        write_columns(self.table, [columns], columns)


def _repeated(directory: Path, part: int) -> Path:
    return directory / f"repeated-{part:04d}"


@lru_cache(maxsize=_MAX_PARTS)
def _mapped(table: Path) -> tuple[U64, U64]:
    return read_column(table, "passages"), read_column(table, "owners")


def without_repeated_passages(
    document: Document, settings: RepeatedTextSettings, directory: Path, parts: int
) -> Document:
    """The document without what an earlier one has, or itself further up; its id stays, as its place in the order."""
    found = passages(document.text, settings)
    keepers = _keepers([key for _, _, key in found], directory, parts)
    own = int(document.id[:16], 16)
    seen: set[int] = set()
    rest, done = "", 0  # the text that stays, of what is before `done`
    for start, end, key in found:
        if key in keepers and (keepers[key] != own or key in seen):
            rest = _joined(rest, document.text[done:start]) if start > done else rest
            done = max(done, end)
        seen.add(key)
    if not done:
        return document
    rest = _joined(rest, document.text[done:])
    return replace(document, text=_BLANK_LINES.sub("\n\n", rest).strip("\n"))


def _joined(before: str, after: str) -> str:
    """The two sides of a gap with one space in it, or the line break that is there."""
    before, after = before.rstrip(" "), after.lstrip(" ")
    together = not before or not after or before.endswith("\n") or after.startswith("\n")
    return f"{before}{after}" if together else f"{before} {after}"


def _keepers(keys: list[int], directory: Path, parts: int) -> dict[int, int]:
    """Of the passages that are repeated: the document that keeps each."""
    wanted = np.unique(np.array(keys, np.uint64))
    part_of = np.searchsorted(_bounds(parts), wanted, side="right") - 1
    keepers: dict[int, int] = {}
    for part in np.unique(part_of).tolist():
        hashes, owners = _mapped(_repeated(directory, part))
        here = wanted[part_of == part]
        places = np.minimum(np.searchsorted(hashes, here), max(0, len(hashes) - 1))
        there = hashes[places] == here if len(hashes) else np.zeros(len(here), bool)
        keepers.update(zip(here[there].tolist(), owners[places[there]].tolist(), strict=True))
    return keepers
