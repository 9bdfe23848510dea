"""Tables of numbers that deduplication tasks exchange.

A table is a directory with one file per column. Each file contains the raw numbers of its column and is read with
`np.memmap`. The operating system can evict the pages of a memory map, and reading a slice of a column reads only the
pages of this slice from disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.core.files import atomic_directory
from groundup.corpus.markers import TABLE_MARKER, write_marker

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_TYPES = {
    "bands": "<u8",  # band hashes of a partition, of shape [bands, documents]
    "ids": ">u8",  # document IDs as pairs of 64-bit numbers, of shape [documents, 2]
    "offsets": "<i8",  # start of each document's shingle set in `shingles`, and the end of the last shingle set
    "shingles": "<u4",
    "later": "<u8",  # number of the later document of each pair
    "earlier": "<u8",
    "jaccard": "<f8",
    "passages": "<u8",  # hashes of passages
    "owners": "<u8",  # first 64 bits of the ID of the document that contains the passage
}


def write_columns(path: Path, parts: Iterable[Mapping[str, npt.NDArray[Any]]], names: Iterable[str]) -> None:
    """Write a table atomically, appending one part after the other to each column."""
    with atomic_directory(path) as temporary:
        with ExitStack() as stack:
            files = {name: stack.enter_context((temporary / name).open("wb")) for name in names}
            for part in parts:
                for name, file in files.items():
                    part[name].astype(_TYPES[name], copy=False).tofile(file)
        write_marker(temporary / TABLE_MARKER, [temporary / name for name in files])


def read_column(path: Path, name: str) -> npt.NDArray[Any]:
    """Return a column of a table as a memory map."""
    file = path / name
    if file.stat().st_size == 0:  # np.memmap cannot map empty files
        return np.empty(0, _TYPES[name])
    return np.memmap(file, _TYPES[name], mode="r")


def spans(starts: I64, lengths: I64) -> I64:
    """Return the indices start, start + 1, ..., start + length - 1 of each span, concatenated over all spans."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def group_starts(*sorted_keys: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows that begin a group of equal keys. The rows must be sorted by the keys."""
    first = np.ones(len(sorted_keys[0]), bool)
    if len(first):
        first[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in sorted_keys])
    return first


def mix(values: U64) -> U64:
    """Mix the bits of each number in place (the finalizer of splitmix64; Steele, Lea, Flood 2014)."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
