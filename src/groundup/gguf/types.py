"""The types that a GGUF tensor may have: their blocks, which of them are read, which are written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
from gguf.quants import dequantize

FileType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k"]
FILE_TYPES: tuple[FileType, ...] = get_args(FileType)

# What `general.file_type` says of a file whose matrices are mostly of the type ("q4_k" is llama.cpp's Q4_K_M mixture).
FILE_TYPE_NUMBERS: dict[FileType, LlamaFileType] = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_k": LlamaFileType.MOSTLY_Q4_K_M,
}


@dataclass(frozen=True, slots=True)
class TensorType:
    """One of ggml's types.

    Attributes:
        number: as files say it.
        block: values that are stored together; a row is a whole number of blocks.
        block_bytes: what a block takes.
    """

    number: int
    name: str
    block: int
    block_bytes: int

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` values, a multiple of `block`."""
        return columns // self.block * self.block_bytes

    @property
    def library_type(self) -> GGMLQuantizationType:
        """As the gguf library names it."""
        return GGMLQuantizationType(self.number)


TENSOR_TYPES: dict[int, TensorType] = {
    int(member): TensorType(int(member), member.name, *sizes) for member, sizes in GGML_QUANT_SIZES.items()
}
_BY_NAME = {kind.name: kind for kind in TENSOR_TYPES.values()}


def tensor_type(name: str) -> TensorType:
    """The type of ggml's name, e.g. "Q4_K"."""
    return _BY_NAME[name]


@cache
def readable(number: int) -> bool:
    """Whether tensors of this type can be turned into floating point (asked of the library that does it)."""
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        return False
    try:
        dequantize(np.zeros((1, kind.block_bytes), np.uint8), kind.library_type)
    except NotImplementedError:
        return False
    return True
