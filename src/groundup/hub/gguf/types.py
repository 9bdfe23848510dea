"""The types of GGUF tensors: their block sizes, and lists of the types that groundup can read and write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

FileType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k"]
FILE_TYPES: tuple[FileType, ...] = get_args(FileType)

# Type of most matrices in a file -> value of the metadata key `general.file_type`. "q4_k" is Q4_K_M in llama.cpp.
FILE_TYPE_NUMBERS: dict[FileType, LlamaFileType] = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q4_k": LlamaFileType.MOSTLY_Q4_K_M,
}


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor type of ggml.

    Attributes:
        number: number of the type in GGUF files.
        name: name of the type in ggml.
        block: number of values per block. The row length of a tensor is a multiple of this number.
        block_bytes: size of a block in bytes.
    """

    number: int
    name: str
    block: int
    block_bytes: int

    def row_bytes(self, columns: int) -> int:
        """Return the size in bytes of a row with `columns` values, where `columns` is a multiple of `block`."""
        return columns // self.block * self.block_bytes

    @property
    def library_type(self) -> GGMLQuantizationType:
        """The corresponding enum member of the gguf library."""
        return GGMLQuantizationType(self.number)


TENSOR_TYPES: dict[int, TensorType] = {
    int(member): TensorType(int(member), member.name, *sizes) for member, sizes in GGML_QUANT_SIZES.items()
}
_BY_NAME = {kind.name: kind for kind in TENSOR_TYPES.values()}


def tensor_type(name: str) -> TensorType:
    """Return the type that has the given name in ggml, such as "Q4_K"."""
    return _BY_NAME[name]


# Types that the gguf library can dequantize. All other types are integer types, or are newer than the library.
READABLE = tuple(
    _BY_NAME[name]
    for name in (
        *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
        *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
        *("TQ1_0", "TQ2_0", "MXFP4"),
    )
)
# Types that are also torch dtypes.
PLAIN_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
