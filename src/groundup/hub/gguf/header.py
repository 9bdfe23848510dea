"""Parser of GGUF headers that is safe for untrusted files, because it checks every length before it uses it.

The specification of the format is docs/gguf.md of ggml. A header consists of these parts, in this order:

- the magic bytes, the version, the number of tensors, and the number of metadata entries;
- key, type and value of each metadata entry;
- name, shape, type and offset of each tensor.

The tensor data starts at the next multiple of the alignment. The reader of the `gguf` library does not check lengths. A
malicious file of 100 bytes can therefore keep that reader busy indefinitely.
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
_VERSIONS = (2, 3)  # Version 1 had 32-bit counts and was used only for two months of 2023.
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
_MAX_NAME_BYTES = 65_535  # The format limits names to this length in bytes.
_MAX_ARRAY_ITEMS = 2**24  # This is 64 times the size of the largest vocabulary of a published model.
_MAX_DIMENSIONS = 4
_MIN_ENTRY_BYTES = 8 + 4 + 1  # Length of the key, type, and a value of one byte.
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8  # Length of the name, number of dimensions, one dimension, type, and offset.


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, shape, type and position of a tensor in a GGUF file.

    Attributes:
        name: GGUF name of the tensor.
        shape: shape in the order of torch; the file stores the dimensions in reverse order.
        number: number of the tensor's type in ggml.
        kind: type of the tensor; None if the number is unknown.
        start: position of the tensor's data in the file, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    number: int
    kind: TensorType | None
    start: int

    @property
    def n_bytes(self) -> int:
        """Size of the tensor in the file, in bytes; 0 if the type is unknown."""
        return 0 if self.kind is None else math.prod(self.shape[:-1]) * self.kind.row_bytes(self.shape[-1])


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a GGUF file.

    Attributes:
        metadata: metadata key -> value, in the order of the file. Arrays of numbers are numpy arrays.
        tensors: tensor name -> location, in the order of the file. Tensors of known types are inside the file and do
            not overlap.
    """

    metadata: Mapping[str, MetaValue]
    tensors: Mapping[str, TensorInfo]


def parse_header(data: memoryview, source: str) -> Header:
    """Parse the header of a memory-mapped GGUF file. Time and memory are bounded by the size of the file.

    Args:
        data: bytes of the whole file.
        source: name of the file for error messages.

    Returns:
        The header.

    Raises:
        FormatError: the file is not a GGUF file, its version or byte order is unsupported, or a length, count, offset
            or type is invalid.
    """
    cursor = _Cursor(data, source)
    _check_kind(cursor)
    n_tensors, n_entries = cursor.unpack("QQ")
    cursor.require(n_entries * _MIN_ENTRY_BYTES, f"{n_entries:,} metadata entries")
    metadata: dict[str, MetaValue] = {}
    for _ in range(n_entries):
        key = cursor.name("a metadata key")
        if key in metadata:
            raise cursor.error(f"metadata key {key!r} occurs twice", "keys must be unique")
        metadata[key] = cursor.value(key)
    cursor.require(n_tensors * _MIN_TENSOR_BYTES, f"{n_tensors:,} tensors")
    found = [_tensor(cursor) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment = {alignment}", "the alignment must be a power of two")
    base = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, number, offset in found:
        if name in tensors:
            raise cursor.error(f"tensor {name!r} occurs twice", "names must be unique")
        if offset % alignment:
            raise cursor.error(f"tensor {name!r} at offset {offset}", f"tensors must begin at multiples of {alignment}")
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
            "only little-endian files are supported",
            "Convert it with gguf_convert_endian of the gguf library.",
        )
    if version not in _VERSIONS:
        raise cursor.error(
            f"GGUF version {version}",
            f"supported versions are {' and '.join(map(str, _VERSIONS))}",
            "Convert the model again with a current llama.cpp.",
        )


def _tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Return name, shape, type and offset of a tensor."""
    name = cursor.name("a tensor's name")
    n_dims = cursor.unpack("I")[0]
    if not 1 <= n_dims <= _MAX_DIMENSIONS:
        raise cursor.error(
            f"tensor {name!r} has {n_dims} dimensions", f"a tensor must have 1 to {_MAX_DIMENSIONS} dimensions"
        )
    shape = tuple(reversed(cursor.unpack("Q" * n_dims)))
    number, offset = cursor.unpack("IQ")
    if min(shape) == 0 or math.prod(shape) >= 2**63:
        raise cursor.error(
            f"tensor {name!r} has shape {shape}", "dimensions must be positive, and their product less than 2^63"
        )
    kind = TENSOR_TYPES.get(number)
    if kind is not None and shape[-1] % kind.block:
        raise cursor.error(
            f"tensor {name!r} has rows of {shape[-1]} values",
            f"the row length of type {kind.name} must be a multiple of {kind.block}",
        )
    return name, shape, number, offset


def _check_places(cursor: _Cursor, tensors: Mapping[str, TensorInfo]) -> None:
    end, before = 0, ""
    for tensor in sorted(tensors.values(), key=lambda each: each.start):
        if tensor.start + tensor.n_bytes > len(cursor.data):
            raise cursor.error(
                f"tensor {tensor.name!r} at bytes {tensor.start:,} to {tensor.start + tensor.n_bytes:,}",
                f"the file has only {len(cursor.data):,} bytes",
            )
        if tensor.start < end:
            raise cursor.error(f"tensors {before!r} and {tensor.name!r} overlap", "tensors must not overlap")
        end, before = tensor.start + tensor.n_bytes, tensor.name


class _Cursor:
    """Reader of the header with a current position. It checks the bounds of the data before each read."""

    def __init__(self, data: memoryview, source: str) -> None:
        self.data = data
        self.position = 0
        self._source = source

    def error(
        self, value: str, rule: str, fix: str = "The file is damaged, or not a model: download it again."
    ) -> FormatError:
        return FormatError(f"{self._source}: {value}", rule=rule, fix=fix)

    def require(self, n_bytes: int, what: str) -> None:
        left = len(self.data) - self.position
        if n_bytes > left:
            raise self.error(f"{what} after byte {self.position:,}", f"{left:,} bytes remain, {n_bytes:,} are required")

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
            raise self.error(f"{what} {raw[:40]!r}", f"text must be UTF-8 ({error.reason})") from None

    def name(self, what: str) -> str:
        name = self.text(what)
        if not name or len(name) > _MAX_NAME_BYTES:
            raise self.error(f"{what} of {len(name):,} letters", f"must have 1 to {_MAX_NAME_BYTES:,}")
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
        # Use the shortest decimal number that rounds to the same fp32 value. Direct conversion to fp64 would turn the
        # fp32 value 1e-6 into 9.99999997e-07.
        return float(str(np.float32(value))) if kind is GGUFValueType.FLOAT32 else value

    def _array(self, key: str) -> MetaValue:
        kind = self.kind(key)
        length = self.unpack("Q")[0]
        if length > _MAX_ARRAY_ITEMS:
            raise self.error(f"{key!r} of {length:,} items", f"the maximum is {_MAX_ARRAY_ITEMS:,}")
        if kind is GGUFValueType.ARRAY:
            raise self.error(f"{key!r}: an array of arrays", "arrays must contain numbers or text")
        if kind is GGUFValueType.STRING:
            self.require(length * 8, f"{key!r} of {length:,} items")
            return self._texts(key, length)
        layout = np.dtype(_SCALARS[kind]).newbyteorder("<")
        return np.frombuffer(self.take(length * layout.itemsize, f"{key!r} of {length:,} items"), layout)

    def _texts(self, key: str, length: int) -> list[str]:
        """Read several texts, like `text` but without its overhead: a vocabulary and its merges have 100,000 texts."""
        unpack, data, limit = struct.Struct("<Q").unpack_from, self.data, len(self.data)
        found = []
        try:
            for _ in range(length):
                start = self.position + 8
                end = start + unpack(data, self.position)[0]
                if end > limit:
                    break
                found.append(str(data[start:end], "utf-8"))
                self.position = end
        except (struct.error, UnicodeDecodeError):
            pass
        return found + [self.text(repr(key)) for _ in range(length - len(found))]  # raises the error of an invalid text
