"""Choice of a type for each tensor, as in llama.cpp (llama-quant.cpp), and fallbacks for rows of unsuitable length."""

from __future__ import annotations

import re
from dataclasses import dataclass

from groundup.hub.gguf.types import FileType, TensorType, tensor_type

_LAYER = re.compile(r"blk\.(\d+)\.")
_SENSITIVE = re.compile(r"_norm\.weight$|^position_embd\.weight$")  # Small tensors with a large effect.
_MOSTLY = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k": "Q4_K"}
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # Blocks of 32 instead of 256 values.
_LAST_FALLBACK = "F16"


@dataclass(frozen=True, slots=True)
class Fallback:
    """A tensor whose shape does not fit the intended type.

    Attributes:
        tensor: name in the file.
        intended: name of the intended type.
        used: name of the type used instead.
        why: reason in words.
    """

    tensor: str
    intended: str
    used: str
    why: str


def choose_type(
    name: str, shape: tuple[int, ...], file_type: FileType, *, n_layers: int, tied: bool
) -> tuple[TensorType, Fallback | None]:
    """Return the type of a tensor, and a fallback record if it is not the intended one.

    Args:
        name: GGUF name of the tensor.
        shape: shape of the tensor.
        file_type: type of most matrices.
        n_layers: number of layers.
        tied: whether embeddings are tied; the embedding then gets the type of the output matrix.

    Returns:
        The type, and the fallback or None.
    """
    intended = tensor_type(_wanted(name, shape, file_type, n_layers, tied))
    used = intended
    while shape[-1] % used.block:
        used = tensor_type(_FALLBACKS.get(used.name, _LAST_FALLBACK))
    if used is intended:
        return used, None
    why = f"rows of {shape[-1]:,} values are no multiple of {intended.block}"
    return used, Fallback(name, intended.name, used.name, why)


def _wanted(name: str, shape: tuple[int, ...], file_type: FileType, n_layers: int, tied: bool) -> str:
    if len(shape) < 2 or _SENSITIVE.search(name):
        return "F32"
    mostly = _MOSTLY[file_type]
    if file_type not in ("q4_0", "q4_k"):
        return mostly
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q6_K"
    if file_type == "q4_k":  # The mixture that llama.cpp names Q4_K_M.
        layer = _LAYER.match(name)
        if "attn_qkv" in name:
            return "Q5_K"
        if layer is not None and ("attn_v" in name or "ffn_down" in name) and _is_sensitive(int(layer[1]), n_layers):
            return "Q6_K"
    return mostly


def _is_sensitive(layer: int, n_layers: int) -> bool:
    """Return whether a layer is in the first or last eighth, or every third one between."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2
