"""Choice of the GGUF type of each tensor, with the same rules as llama.cpp (llama-quant.cpp), except for q4_1.

If the row length of a tensor is not a multiple of the block size of the intended type, a fallback type is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from groundup.hub.gguf.types import FileType, TensorType, tensor_type

_LAYER = re.compile(r"blk\.(\d+)\.")
_SENSITIVE = re.compile(r"_norm\.weight$|^position_embd\.weight$")  # Small tensors that have a large effect on quality.
_MOSTLY = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q4_0": "Q4_0",
    "q4_1": "Q4_1",
    "q4_k": "Q4_K",
}
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # Fallbacks have blocks of 32 values instead of 256.
_LAST_FALLBACK = "F16"


@dataclass(frozen=True, slots=True)
class Fallback:
    """A tensor that is written with another type than intended, because its shape does not fit the intended type.

    Attributes:
        tensor: GGUF name of the tensor.
        intended: name of the intended type.
        used: name of the type that is used instead.
        why: reason for the fallback, for the user.
    """

    tensor: str
    intended: str
    used: str
    why: str


def choose_type(
    name: str, shape: tuple[int, ...], file_type: FileType, *, n_layers: int, tied: bool
) -> tuple[TensorType, Fallback | None]:
    """Choose the GGUF type of a tensor.

    Args:
        name: GGUF name of the tensor.
        shape: shape of the tensor.
        file_type: type of most matrices in the file.
        n_layers: number of layers of the model.
        tied: whether embeddings are tied. If so, the embedding gets the type of the output head.

    Returns:
        The type, and a `Fallback` if it is not the intended type; otherwise None.
    """
    intended = tensor_type(_wanted(name, shape, file_type, n_layers, tied))
    used = intended
    while shape[-1] % used.block:
        used = tensor_type(_FALLBACKS.get(used.name, _LAST_FALLBACK))
    if used is intended:
        return used, None
    why = f"the row length {shape[-1]:,} is not a multiple of {intended.block}"
    return used, Fallback(name, intended.name, used.name, why)


def _wanted(name: str, shape: tuple[int, ...], file_type: FileType, n_layers: int, tied: bool) -> str:
    if len(shape) < 2 or _SENSITIVE.search(name):
        return "F32"
    mostly = _MOSTLY[file_type]
    if file_type == "q4_1" and name in ("output.weight", "token_embd.weight"):
        return "Q8_0"  # the types of groundup's own int4 format, which has kernels for Q4_1 and Q8_0
    if file_type not in ("q4_0", "q4_k"):
        return mostly
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q6_K"
    if file_type == "q4_k":  # llama.cpp calls this mixture of types Q4_K_M.
        layer = _LAYER.match(name)
        if "attn_qkv" in name:
            return "Q5_K"
        if layer is not None and ("attn_v" in name or "ffn_down" in name) and _is_sensitive(int(layer[1]), n_layers):
            return "Q6_K"
    return mostly


def _is_sensitive(layer: int, n_layers: int) -> bool:
    """Return whether a layer is in the first or last eighth of the layers, or is every third layer in between.

    llama.cpp uses more bits for some matrices of these layers.
    """
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2
