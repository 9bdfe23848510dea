"""Which type each tensor of a file gets: llama.cpp's customs (llama-quant.cpp), and what takes over where a row does
not fit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from groundup.hub.gguf.types import FileType, TensorType, tensor_type

_LAYER = re.compile(r"blk\.(\d+)\.")
_KEPT = re.compile(r"_norm\.weight$|^position_embd\.weight$")  # matrices or not: small, and felt everywhere
_MOSTLY = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k": "Q4_K"}
_FITS_MORE_ROWS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # blocks of 32 instead of 256
_FITS_EVERY_ROW = "F16"


@dataclass(frozen=True, slots=True)
class Fallback:
    """A tensor whose shape cannot have the type that it should.

    Attributes:
        tensor: its name in the file.
        wanted, got: names of types.
        why: in words.
    """

    tensor: str
    wanted: str
    got: str
    why: str


def choose_type(
    name: str, shape: tuple[int, ...], file_type: FileType, *, n_layers: int, tied: bool
) -> tuple[TensorType, Fallback | None]:
    """The type of a tensor, and what it should have been if that does not go.

    Args:
        name: in GGUF's words.
        tied: the embedding also scores tokens, and so gets what an output matrix would.
    """
    wanted = tensor_type(_wanted(name, shape, file_type, n_layers, tied))
    got = wanted
    while shape[-1] % got.block:
        got = tensor_type(_FITS_MORE_ROWS.get(got.name, _FITS_EVERY_ROW))
    if got is wanted:
        return got, None
    why = f"rows of {shape[-1]:,} values are no multiple of {wanted.block}"
    return got, Fallback(name, wanted.name, got.name, why)


def _wanted(name: str, shape: tuple[int, ...], file_type: FileType, n_layers: int, tied: bool) -> str:
    if len(shape) < 2 or _KEPT.search(name):
        return "F32"
    mostly = _MOSTLY[file_type]
    if file_type not in ("q4_0", "q4_k"):
        return mostly
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q6_K"
    if file_type == "q4_k":  # the mixture that llama.cpp calls Q4_K_M
        layer = _LAYER.match(name)
        if "attn_qkv" in name:
            return "Q5_K"
        if layer is not None and ("attn_v" in name or "ffn_down" in name) and _felt_more(int(layer[1]), n_layers):
            return "Q6_K"
    return mostly


def _felt_more(layer: int, n_layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2
