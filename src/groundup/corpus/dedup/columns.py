"""Tables of numbers between the tasks: a directory of raw little-endian columns, read through memory maps.

A map costs no memory that the system could not take back, and reading a part of a column touches only that part.
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

# The type of each column that there is.
_TYPES = {
    "bands": "<u8",  # band hashes of all documents of a portion, one band after the other
    "ids": ">u8",  # document ids, two numbers each
    "offsets": "<i8",  # where each document's set begins in `shingles`, and the end
    "shingles": "<u4",
    "later": "<u8",  # numbers of documents
    "earlier": "<u8",
    "jaccard": "<f8",
    "passages": "<u8",  # hashes of paragraphs or lines
    "owners": "<u8",  # the first half of the id of the document that each is in
}


def write_columns(path: Path, parts: Iterable[Mapping[str, npt.NDArray[Any]]], names: Iterable[str]) -> None:
    """Write a table part by part, as a directory that is whole or absent."""
    with atomic_directory(path) as temporary:
        with ExitStack() as stack:
            files = {name: stack.enter_context((temporary / name).open("wb")) for name in names}
            for part in parts:
                for name, file in files.items():
                    part[name].astype(_TYPES[name], copy=False).tofile(file)
        write_marker(temporary / TABLE_MARKER, [temporary / name for name in files])


def read_column(path: Path, name: str) -> npt.NDArray[Any]:
    """One column of a table, mapped."""
    file = path / name
    if file.stat().st_size == 0:  # nothing to map
        return np.empty(0, _TYPES[name])
    return np.memmap(file, _TYPES[name], mode="r")


def spans(starts: I64, lengths: I64) -> I64:
    """The indices start, start + 1, ... of every span, one span after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def group_starts(*sorted_keys: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where, in rows sorted by these keys, another combination of them begins."""
    first = np.ones(len(sorted_keys[0]), bool)
    if len(first):
        first[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in sorted_keys])
    return first


def mix(values: U64) -> U64:
    """Spread each number's bits over all of it, in place (splitmix64's finalizer; Steele, Lea, Flood 2014)."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
