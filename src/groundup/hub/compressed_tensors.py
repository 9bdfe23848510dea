"""Weights that llm-compressor quantized, in the format compressed-tensors, which vLLM and transformers read too.

Supported are symmetric integers of 4 or 8 bits with a scale per group of inputs or per output. `pack-quantized` stores
a matrix as `weight_packed` (int32, the first input in the lowest bits, values with an offset), `weight_scale` and
`weight_shape`. `int-quantized` stores `weight` (int8) and `weight_scale`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.weight_files import WeightFiles
from groundup.model.quantized import Bits, QuantizedWeight

METHOD = "compressed-tensors"
KEY = "quantization_config"
_FORMATS = ("pack-quantized", "int-quantized")
_WEIGHT, _PACKED, _SCALE, _SHAPE = ".weight", ".weight_packed", ".weight_scale", ".weight_shape"
# Scales of activations and of the KV cache. groundup does not need them, because its activations have more bits.
_UNUSED = re.compile(r"\.(input|output|k|v|q)_(scale|zero_point|global_scale)$|\.(input|output)_observer\.")
_REQUANTIZE = "Get the model as a GGUF file or in bfloat16. int4 and int8 can be made when it is loaded: --dtype int4."
_FIXES = {
    "bitsandbytes": "Load the model with transformers, call model.dequantize(), and save it with save_pretrained.",
    METHOD: "Quantize the model with llm-compressor as W4A16 or W8A8, or get it as a GGUF file or in bfloat16.",
}


@dataclass(frozen=True, slots=True)
class CompressionScheme:
    """How the matrices of a model are quantized.

    Attributes:
        bits: Number of bits per value.
    """

    bits: Bits


def read_scheme(config: Mapping[str, Any]) -> CompressionScheme | None:
    """Return how the weights of a model are quantized; None if they are not quantized.

    Args:
        config: content of `config.json`.

    Raises:
        FormatError: the quantization method or its variant is not supported.
    """
    text_config = config.get("text_config")
    found = config.get(KEY) or (text_config.get(KEY) if isinstance(text_config, Mapping) else None)
    if not found:
        return None
    if not isinstance(found, Mapping):
        raise _unsupported("not an object", "")
    method = str(found.get("quant_method"))
    if method != METHOD:
        raise _unsupported(f"quant_method = {method!r}", method)
    groups = found.get("config_groups")
    schemes = [_scheme(found, group) for group in groups.values()] if isinstance(groups, Mapping) else []
    if len(set(schemes)) != 1:
        raise _unsupported(f"{len(schemes)} config_groups", METHOD)
    for key in ("sparsity_config", "transform_config"):
        value = found.get(key)
        if value and (not isinstance(value, Mapping) or value.get("format", key) != "dense"):
            raise _unsupported(f"{key} = {value!r}", METHOD)
    return schemes[0]


def _scheme(found: Mapping[str, Any], group: Any) -> CompressionScheme:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        raise _unsupported("a group without weights", METHOD)
    format_ = group.get("format") or found.get("format")
    expected: dict[str, tuple[Any, ...]] = {
        "type": ("int",),
        "num_bits": (4, 8),
        "symmetric": (True,),
        "strategy": ("group", "channel"),
        "actorder": (None, "weight", "static"),
    }
    for key, values in expected.items():
        if weights.get(key) not in values:
            raise _unsupported(f"weights.{key} = {weights.get(key)!r}", METHOD)
    if format_ not in _FORMATS or (format_ == "int-quantized" and weights["num_bits"] != 8):
        raise _unsupported(f"format = {format_!r} with {weights['num_bits']} bits", METHOD)
    return CompressionScheme(weights["num_bits"])


def _unsupported(value: str, method: str) -> FormatError:
    return FormatError(
        f"{KEY}: {value}"[:200],
        rule=f"groundup reads {METHOD} with symmetric int4 or int8 weights ({' or '.join(_FORMATS)}), and GGUF",
        fix=_FIXES.get(method, _REQUANTIZE),
    )


class CompressedFiles(WeightFiles):
    """Memory-mapped tensors of a model directory with quantized matrices, under the names of the dense matrices."""

    def __init__(self, directory: Path, scheme: CompressionScheme) -> None:
        """Read the names, dtypes and shapes of all tensors.

        Args:
            directory: model directory.
            scheme: how the matrices are quantized.

        Raises:
            FormatError: for the same reasons as in `WeightFiles`, or the tensors of a matrix do not belong together.
        """
        super().__init__(directory)
        self._scheme = scheme
        self._dense: list[str] = []
        self._quantized: dict[str, str] = {}  # name of the dense matrix -> name of its values
        inside = set(self._entries)
        for name in self._entries:
            layer = name.removesuffix(_PACKED) if name.endswith(_PACKED) else name.removesuffix(_WEIGHT)
            if layer != name and layer + _SCALE in inside:
                self._quantized[layer + _WEIGHT] = name
            elif not name.endswith((_SCALE, _SHAPE)) and not _UNUSED.search(name):
                self._dense.append(name)
        for name, values in self._quantized.items():
            self._check(directory, name, values)

    @property
    def names(self) -> Iterable[str]:
        """Names of all tensors, with one name per quantized matrix."""
        return [*self._dense, *self._quantized]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, or of the dense matrix if it is quantized."""
        values = self._quantized.get(name, name)
        shape = super().shape(values)
        return (*shape[:-1], shape[-1] * (32 // self._scheme.bits)) if values.endswith(_PACKED) else shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor; fp32 if it is quantized."""
        return torch.float32 if name in self._quantized else super().dtype(name)

    def tensor(self, name: str, *, transient: bool = False) -> Tensor:
        """Return a tensor. A quantized matrix is dequantized to fp32."""
        found = self.quantized(name)
        return super().tensor(name, transient=transient) if found is None else found.dequantize()

    def quantized(self, name: str) -> QuantizedWeight | None:
        """Return a quantized matrix with memory-mapped values; None if the tensor is not quantized."""
        if name not in self._quantized:
            return None
        values = super().tensor(self._quantized[name])
        scales = super().tensor(name.removesuffix(_WEIGHT) + _SCALE).half()
        if values.dtype == torch.int8:
            return QuantizedWeight(values, scales, 8)
        if self._scheme.bits == 4:
            return QuantizedWeight(values.view(torch.uint8), scales, 4)
        return QuantizedWeight((values.view(torch.uint8) ^ 128).view(torch.int8), scales, 8)

    def _check(self, directory: Path, name: str, values: str) -> None:
        layer = name.removesuffix(_WEIGHT)
        kinds = {key: self._entries[key] for key in (values, layer + _SCALE)}
        outputs, inputs = (*self.shape(name), 0, 0)[:2]
        scales = kinds[layer + _SCALE].shape
        fits = len(scales) == 2 and scales[0] == outputs and scales[1] > 0 and inputs % scales[1] == 0
        kind = kinds[values].dtype
        if (
            not fits
            or kind != ("I32" if values.endswith(_PACKED) else "I8")
            or layer + ".weight_g_idx" in self._entries
        ):
            raise FormatError(
                f"{directory}: {values} has type {kind} and shape {kinds[values].shape}, {layer + _SCALE} {scales}",
                rule=f"a matrix of {self._scheme.bits} bits has values and one scale per output and group of inputs",
                fix="The files are damaged, or their variant is not supported: get the model as a GGUF file.",
            )
