"""Removal of repeated passages from documents. The first occurrence of a passage in the corpus is kept.

A passage is a paragraph, a line or a span with a given number of words. To find repeated spans, every window of words
is hashed. The hashes find the same spans as a suffix array of the corpus (Lee et al. 2022, arXiv 2107.06499). Hashes
can be sorted in parts with bounded memory, but a suffix array needs memory of six times the size of the text.
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
# In scripts that do not separate words by spaces, each character is a word.
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_BYTES = {"paragraph": 200, "line": 60, "span": 6}  # approximate bytes of text per passage hash
_HASHES = 1 << 64
_MAX_PARTS = 256  # maximum number of parts of the hash range, which limits the number of open memory maps
_PART_HASHES = 1 << 20  # target number of hashes per part; a hash takes about 50 bytes of memory

Passage = tuple[int, int, int]  # start offset, end offset and hash of a passage


def passages(text: str, settings: RepeatedTextSettings) -> list[Passage]:
    """Return the passages of a text that have at least the minimum length, in the order of the text.

    Two passages that differ only in case or white space have the same hash.
    """
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
    """A task that writes the sorted passage hashes of a partition. Documents that are near-duplicates are skipped."""

    partition: Partition
    number: int
    settings: RepeatedTextSettings
    directory: Path

    @property
    def label(self) -> str:
        """Label for the progress display, with the file name and the first row group of the partition."""
        return f"{self.settings.unit}s of {self.partition.path.name}, row groups from {self.partition.groups[0]}"

    @property
    def table(self) -> Path:
        """Path of the table of passage hashes and their documents, sorted by hash, then by document number.

        The column `owners` identifies a document by the first 64 bits of its ID.
        """
        return self.directory / f"passages-{self.number:06d}"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write the table."""
        keys, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        dropped = near_duplicates_among(self.directory, self.partition.first, self.partition.documents)
        for batch in self.partition.batches(("text", "id")):
            texts, ids = batch.column("text").to_pylist(), batch.column("id").to_pylist()
            found = [
                [] if id_ in dropped else [key for _, _, key in passages(text, self.settings)]
                for text, id_ in zip(texts, ids, strict=True)
            ]
            keys.append(np.array([key for of_text in found for key in of_text], np.uint64))
            owners.append(np.repeat(id_numbers(ids)[:, 0].astype(np.uint64), [len(of_text) for of_text in found]))
        all_keys, all_owners = np.concatenate(keys), np.concatenate(owners)
        order = np.argsort(all_keys, kind="stable")
        columns = {"passages": all_keys[order], "owners": all_owners[order]}
        write_columns(self.table, [columns], columns)


def num_parts(text_bytes: int, settings: RepeatedTextSettings) -> int:
    """Return into how many parts the hash range is split for this amount of text."""
    return min(_MAX_PARTS, 1 + text_bytes // _BYTES[settings.unit] // _PART_HASHES)


def _bounds(parts: int) -> U64:
    """Return the lowest hash of each part of the hash range."""
    return np.array([-(-part * _HASHES // parts) for part in range(parts)], np.uint64)


@dataclass(frozen=True, slots=True)
class RepeatedPassageTask:
    """A task that finds the repeated passages in one part of the hash range.

    For each hash that occurs more than once, the task writes the hash and the document that keeps the passage.
    """

    passages: tuple[Path, ...]
    part: int
    parts: int
    directory: Path

    @property
    def label(self) -> str:
        """Label for the progress display, with the part of the hash range."""
        return f"repeated passages, part {self.part + 1} of {self.parts}"

    @property
    def table(self) -> Path:
        """Path of the table of repeated hashes, in ascending order.

        The column `owners` has the first 64 bits of the ID of the document that keeps the passage.
        """
        return _repeated(self.directory, self.part)

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write the table."""
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
    """Return the document without passages that occur in an earlier document or earlier in the same document.

    The ID of the document does not change.
    """
    found = passages(document.text, settings)
    keepers = _keepers([key for _, _, key in found], directory, parts)
    own = int(document.id[:16], 16)
    seen: set[int] = set()
    rest, done = "", 0  # `rest` is the kept part of document.text[:done]
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
    """Join the text before and after a removed passage with one space, or with the existing line break."""
    before, after = before.rstrip(" "), after.lstrip(" ")
    no_space = not before or not after or before.endswith("\n") or after.startswith("\n")
    return f"{before}{after}" if no_space else f"{before} {after}"


def _keepers(keys: list[int], directory: Path, parts: int) -> dict[int, int]:
    """Return a dictionary from the hash of each repeated passage to the document that keeps the passage."""
    unique = np.unique(np.array(keys, np.uint64))
    part_of = np.searchsorted(_bounds(parts), unique, side="right") - 1
    keepers: dict[int, int] = {}
    for part in np.unique(part_of).tolist():
        hashes, owners = _mapped(_repeated(directory, part))
        queries = unique[part_of == part]
        places = np.minimum(np.searchsorted(hashes, queries), max(0, len(hashes) - 1))
        found = hashes[places] == queries if len(hashes) else np.zeros(len(queries), bool)
        keepers.update(zip(queries[found].tolist(), owners[places[found]].tolist(), strict=True))
    return keepers
