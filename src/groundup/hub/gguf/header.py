"""The header of a GGUF file: metadata, and where each tensor lies. No length in it is believed before it is checked.

The format: magic, version, two counts; `key type value` entries; `name shape type offset` of each tensor; then, from
the next multiple of the alignment, the tensors' bytes (docs/gguf.md of ggml). The `gguf` library's own reader follows
the lengths that a file gives, so that a hostile one of 100 bytes keeps it busy for ever; hence this parser.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGUF_DEFAULT_ALIGNMENT, GGUFValueType

from groundup.core.errors import FormatError
from groundup.hub.gguf.types import TENSOR_TYPES, TensorType

MetaValue = bool | int | float | str | list[str] | list[int] | list[float] | np.ndarray[Any, Any]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # 1 had 32-bit counts and lived for two months of 2023
_SCALARS: dict[GGUFValueType, str] = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
_LONGEST_NAME = 65_535  # bytes, as the format's text has it
_LONGEST_ARRAY = 2**24  # 64 times the largest vocabulary in use
_MOST_DIMENSIONS = 4
# The least that an entry can take: lengths of its strings, type, and the value's first byte; or one dimension, offset.
_SMALLEST_ENTRY = 8 + 4 + 1
_SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of the file.

    Attributes:
        shape: the slowest dimension first, as torch has it (the file has the fastest first).
        number: of its type; `kind` is None where nothing is known about that.
        start: of its bytes in the file.
    """

    name: str
    shape: tuple[int, ...]
    number: int
    kind: TensorType | None
    start: int

    @property
    def n_bytes(self) -> int:
        """What it takes in the file; of an unknown type, 0."""
        return 0 if self.kind is None else math.prod(self.shape[:-1]) * self.kind.row_bytes(self.shape[-1])


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says before its tensors.

    Attributes:
        metadata: in the file's order; arrays of numbers as numpy arrays.
        tensors: by name, in the file's order; every known one lies inside the file and overlaps no other.
    """

    metadata: Mapping[str, MetaValue]
    tensors: Mapping[str, TensorInfo]


def parse_header(data: memoryview, source: str) -> Header:
    """Read the header of a whole file's bytes (mapped, not loaded).

    Args:
        source: the file's name, for messages.

    Raises:
        FormatError: not a GGUF file, one of a version or byte order that is not read, or one whose lengths, counts,
            offsets or types cannot be true. Time and memory are bounded by the file's size.
    """
    cursor = _Cursor(data, source)
    _check_kind(cursor)
    n_tensors, n_entries = cursor.unpack("QQ")
    cursor.require(n_entries * _SMALLEST_ENTRY, f"{n_entries:,} metadata entries")
    metadata: dict[str, MetaValue] = {}
    for _ in range(n_entries):
        key = cursor.name("a metadata key")
        if key in metadata:
            raise cursor.error(f"metadata key {key!r} twice", "a key says one thing")
        metadata[key] = cursor.value(key)
    cursor.require(n_tensors * _SMALLEST_TENSOR, f"{n_tensors:,} tensors")
    found = [_tensor(cursor) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment = {alignment}", "tensors are aligned to a power of two")
    base = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, number, offset in found:
        if name in tensors:
            raise cursor.error(f"tensor {name!r} twice", "a name belongs to one tensor")
        if offset % alignment:
            raise cursor.error(f"tensor {name!r} at offset {offset}", f"tensors begin at multiples of {alignment}")
        tensors[name] = TensorInfo(name, shape, number, TENSOR_TYPES.get(number), base + offset)
    _check_places(cursor, tensors)
    return Header(metadata, tensors)


def _check_kind(cursor: _Cursor) -> None:
    magic = bytes(cursor.take(4, "the magic"))
    if magic != _MAGIC:
        raise cursor.error(f"begins with {magic!r}", f"a GGUF file begins with {_MAGIC!r}")
    version = cursor.unpack("I")[0]
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in _VERSIONS and swapped in _VERSIONS:
        raise cursor.error(
            "a big-endian file",
            "little-endian files are read",
            "Convert it with gguf_convert_endian of the gguf library.",
        )
    if version not in _VERSIONS:
        raise cursor.error(
            f"GGUF version {version}",
            f"versions {' and '.join(map(str, _VERSIONS))} are read",
            "Convert the model again with a current llama.cpp.",
        )


def _tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset from where the tensors begin."""
    name = cursor.name("a tensor's name")
    n_dims = cursor.unpack("I")[0]
    if not 1 <= n_dims <= _MOST_DIMENSIONS:
        raise cursor.error(f"tensor {name!r} of {n_dims} dimensions", f"a tensor has 1 to {_MOST_DIMENSIONS}")
    shape = tuple(reversed(cursor.unpack("Q" * n_dims)))
    number, offset = cursor.unpack("IQ")
    if min(shape) == 0 or math.prod(shape) >= 2**63:
        raise cursor.error(
            f"tensor {name!r} of shape {shape}", "dimensions are positive and their product fits 63 bits"
        )
    kind = TENSOR_TYPES.get(number)
    if kind is not None and shape[-1] % kind.block:
        raise cursor.error(
            f"tensor {name!r}: rows of {shape[-1]} values of {kind.name}", f"its rows are multiples of {kind.block}"
        )
    return name, shape, number, offset


def _check_places(cursor: _Cursor, tensors: Mapping[str, TensorInfo]) -> None:
    end, before = 0, ""
    for tensor in sorted(tensors.values(), key=lambda each: each.start):
        if tensor.start + tensor.n_bytes > len(cursor.data):
            raise cursor.error(
                f"tensor {tensor.name!r} at bytes {tensor.start:,} to {tensor.start + tensor.n_bytes:,}",
                f"the file has {len(cursor.data):,}",
            )
        if tensor.start < end:
            raise cursor.error(f"tensors {before!r} and {tensor.name!r} overlap", "each tensor has bytes of its own")
        end, before = tensor.start + tensor.n_bytes, tensor.name


class _Cursor:
    """A place in the bytes, that moves on by what is read, and refuses to leave them."""

    def __init__(self, data: memoryview, source: str) -> None:
        self.data = data
        self.position = 0
        self._source = source

    def error(self, value: str, rule: str, fix: str = "The file is damaged, or no model; get it again.") -> FormatError:
        return FormatError(f"{self._source}: {value}", rule=rule, fix=fix)

    def require(self, n_bytes: int, what: str) -> None:
        left = len(self.data) - self.position
        if n_bytes > left:
            raise self.error(f"{what} after byte {self.position:,}", f"{left:,} bytes are left, {n_bytes:,} are needed")

    def take(self, n_bytes: int, what: str) -> memoryview:
        self.require(n_bytes, what)
        self.position += n_bytes
        return self.data[self.position - n_bytes : self.position]

    def unpack(self, fields: str) -> tuple[Any, ...]:
        layout = struct.Struct("<" + fields)
        return layout.unpack(self.take(layout.size, "a number"))

    def text(self, what: str) -> str:
        length = self.unpack("Q")[0]
        raw = bytes(self.take(length, f"{what} of {length:,} bytes"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} {raw[:40]!r}", f"text is UTF-8 ({error.reason})") from None

    def name(self, what: str) -> str:
        name = self.text(what)
        if not name or len(name) > _LONGEST_NAME:
            raise self.error(f"{what} of {len(name):,} letters", f"it has 1 to {_LONGEST_NAME:,}")
        return name

    def kind(self, key: str) -> GGUFValueType:
        number = self.unpack("I")[0]
        try:
            return GGUFValueType(number)
        except ValueError:
            raise self.error(
                f"{key!r} of value type {number}", f"value types are 0 to {max(GGUFValueType):d}"
            ) from None

    def value(self, key: str) -> MetaValue:
        kind = self.kind(key)
        if kind is GGUFValueType.STRING:
            return self.text(repr(key))
        if kind is GGUFValueType.ARRAY:
            return self._array(key)
        value = self.unpack(_SCALARS[kind])[0]
        # 1e-6 in 32 bits is 9.99999997e-07 in 64: the shortest decimal that means the same 32 bits was meant.
        return float(str(np.float32(value))) if kind is GGUFValueType.FLOAT32 else value

    def _array(self, key: str) -> MetaValue:
        kind = self.kind(key)
        length = self.unpack("Q")[0]
        if length > _LONGEST_ARRAY:
            raise self.error(f"{key!r} of {length:,} items", f"an array has at most {_LONGEST_ARRAY:,}")
        if kind is GGUFValueType.ARRAY:
            raise self.error(f"{key!r}: an array of arrays", "arrays hold numbers or text")
        if kind is GGUFValueType.STRING:
            self.require(length * 8, f"{key!r} of {length:,} items")
            return [self.text(repr(key)) for _ in range(length)]
        layout = np.dtype(_SCALARS[kind]).newbyteorder("<")
        return np.frombuffer(self.take(length * layout.itemsize, f"{key!r} of {length:,} items"), layout)
