"""Packing of weight matrices into the format of the compiled kernels, which native/quantized.h describes.

Dense weights are rounded to the chosen format. Quantized weights are packed as they are, without rounding.

Shape letters: O outputs and I inputs of a layer, G groups of an output, S values of a group.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from groundup.kernels.memory import CleanFilePages
from groundup.model.quantized import GROUP_SIZE, QuantizedWeight, quantize_int4

WeightFormat = Literal["bfloat16", "int8", "int4"]
PANEL, PAIR = 16, 32  # outputs
KINDS: dict[WeightFormat, int] = {"int8": 0, "int4": 1, "bfloat16": 2}
BYTES_PER_WEIGHT: dict[WeightFormat, float] = {
    "int8": 1 + 2 / GROUP_SIZE,
    "int4": 0.5 + 4 / GROUP_SIZE,
    "bfloat16": 2,
}
_CHUNK_WEIGHTS = 2**22  # weights that are converted at a time, which bounds the memory for intermediate results
_HALF = GROUP_SIZE // 2  # distance between the two inputs whose int4 values share a byte

_int, _pointer = ctypes.c_int64, ctypes.c_void_p


class _Quantized(ctypes.Structure):
    _fields_ = [
        ("values", _pointer),
        ("scales", _pointer),
        ("minimums", _pointer),
        ("value_stride", _int),
        ("scale_stride", _int),
    ]


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A packed matrix.

    Attributes:
        format: Format of the weights.
        outputs: Number of outputs.
        inputs: Number of inputs.
        address: Address of the packed weights. They live as long as the `Packer`.
    """

    format: WeightFormat
    outputs: int
    inputs: int
    address: int


def packed_format(weight: Tensor | QuantizedWeight, chosen: WeightFormat = "bfloat16") -> WeightFormat:
    """Return the format in which a weight is packed: its own format if it is quantized, otherwise `chosen`.

    int4 values with smaller groups than the kernels have are packed as int8.
    """
    if not isinstance(weight, QuantizedWeight):
        return chosen
    return "int4" if weight.bits == 4 and weight.group_size % GROUP_SIZE == 0 else "int8"


class Packer:
    """Packs matrices into its own memory, and releases the pages of files from which weights are memory-mapped.

    Args:
        library: The library of C++ kernels.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._memory = _Memory()
        self._pages = CleanFilePages()

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self._memory.nbytes

    def pack(
        self, weights: Sequence[Tensor | QuantizedWeight], chosen: WeightFormat, *, alternate: bool = False
    ) -> PackedMatrix:
        """Pack the stacked weights of layers that read the same input.

        Args:
            weights: Weights of the layers, each (O, I).
            chosen: Format of dense weights. If the formats of the weights differ, all are packed as int8.
            alternate: Whether panels of two layers alternate. Each layer is then padded to whole panels.

        Returns:
            The packed matrix.
        """
        resolved = [weight.resolve() if isinstance(weight, QuantizedWeight) else weight.detach() for weight in weights]
        formats = {packed_format(weight, chosen) for weight in resolved}
        format_ = formats.pop() if len(formats) == 1 else "int8"
        sizes = [weight.shape[0] for weight in resolved]
        inputs = resolved[0].shape[1]
        firsts, step = [sum(sizes[:index]) for index in range(len(sizes))], PANEL
        if alternate:
            firsts, step = [PANEL * index for index in range(len(sizes))], PANEL * len(sizes)
            sizes = [-(-size // PANEL) * PANEL for size in sizes]
        outputs = sum(sizes)
        address = self._memory.take(int(-(-outputs // PAIR) * PAIR * inputs * BYTES_PER_WEIGHT[format_]))
        for stored, weight, first in zip(weights, resolved, firsts, strict=True):
            for row, chunk in _chunks(weight):
                self._pack_rows(address, chunk, format_, first + row // PANEL * step, step)
                self._pages.release(chunk.values if isinstance(chunk, QuantizedWeight) else chunk)
            self._pages.release(stored.values if isinstance(stored, QuantizedWeight) else stored)
        return PackedMatrix(format_, outputs, inputs, address)

    def _pack_rows(
        self, address: int, weight: Tensor | QuantizedWeight, format_: WeightFormat, first: int, step: int
    ) -> None:
        """Pack outputs. Each 16 of them are `step` outputs after the previous 16, the first ones are at `first`."""
        outputs, inputs = weight.shape
        place = (_int(outputs), _int(inputs), _int(first), _int(step))
        if format_ == "bfloat16":
            assert isinstance(weight, Tensor)
            dense = weight.bfloat16().contiguous()
            self._library.groundup_pack_bf16(_pointer(address), _pointer(dense.data_ptr()), *place)
            return
        values_OGS, scales_OG, minimums_OG = _grouped(weight, format_)
        source = _Quantized(
            values_OGS.data_ptr(),
            scales_OG.data_ptr(),
            None if minimums_OG is None else minimums_OG.data_ptr(),
            values_OGS.stride(1),
            scales_OG.stride(1) * scales_OG.itemsize,
        )
        kind = _int(KINDS[format_])
        self._library.groundup_pack_quantized(_pointer(address), ctypes.byref(source), kind, *place)


def _chunks(weight: Tensor | QuantizedWeight) -> Iterator[tuple[int, Tensor | QuantizedWeight]]:
    """Yield parts of a weight, each with its first output, a multiple of the size of a panel."""
    outputs, inputs = weight.shape
    count = max(1, _CHUNK_WEIGHTS // inputs // PANEL) * PANEL
    for row in range(0, outputs, count):
        yield row, weight[row : row + count]


def _grouped(weight: Tensor | QuantizedWeight, format_: WeightFormat) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return values (O, G, S), scales and minimums in fp16 of groups of 32 inputs.

    The distance between groups is the same for all groups.
    """
    if isinstance(weight, QuantizedWeight) and (weight.group_size % GROUP_SIZE or packed_format(weight) != format_):
        weight = weight.dequantize()
    if isinstance(weight, Tensor):
        weight = quantize_int4(weight) if format_ == "int4" else QuantizedWeight.quantize(weight, 8)
    groups = weight.shape[1] // GROUP_SIZE
    scales_OG, minimums_OG = weight.scales.half(), None if weight.minimums is None else weight.minimums.half()
    values = weight.values
    if weight.bits == 4:
        if minimums_OG is None:
            minimums_OG = scales_OG * -8
        if weight.distance != _HALF:
            q_OGS = weight.unsigned().unflatten(1, (groups, GROUP_SIZE))
            values = q_OGS[..., :_HALF] | (q_OGS[..., _HALF:] << 4)
    if (repeats := groups // scales_OG.shape[1]) > 1:
        scales_OG = scales_OG.repeat_interleave(repeats, dim=1)
        minimums_OG = None if minimums_OG is None else minimums_OG.repeat_interleave(repeats, dim=1)
    values_OGS = values if values.dim() == 3 else values.unflatten(1, (groups, -1))
    if minimums_OG is not None and minimums_OG.stride() != scales_OG.stride():
        scales_OG, minimums_OG = scales_OG.contiguous(), minimums_OG.contiguous()
    return _evenly_spaced(values_OGS), _evenly_spaced(scales_OG), minimums_OG


def _evenly_spaced(groups: Tensor) -> Tensor:
    """Return groups (O, G, ...) such that the distance from the last group of an output to the next one is the same."""
    return groups if groups.stride(0) == groups.shape[1] * groups.stride(1) else groups.contiguous()


class _Memory:
    """Memory for packed weights, in huge pages if the system supports them, which makes reading up to twice as fast."""

    _PIECE = 2**26
    _LINE = 64  # bytes of a cache line

    def __init__(self) -> None:
        self._pieces: list[mmap.mmap] = []
        self._addresses: list[int] = []
        self._used = self._PIECE
        self.nbytes = 0

    def take(self, size: int) -> int:
        """Return the address of `size` new bytes, which are zero and live as long as this object."""
        size = -(-size // self._LINE) * self._LINE
        if not self._pieces or self._used + size > len(self._pieces[-1]):
            piece = mmap.mmap(-1, max(size, self._PIECE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a system without large pages
                    piece.madvise(mmap.MADV_HUGEPAGE)
            self._pieces.append(piece)
            self._addresses.append(ctypes.addressof(ctypes.c_char.from_buffer(piece)))
            self._used = 0
        address = self._addresses[-1] + self._used
        self._used += size
        self.nbytes += size
        return address
