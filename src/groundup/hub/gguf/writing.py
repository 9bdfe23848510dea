"""Export of a model to a GGUF file. The file is written atomically, with only one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_VERSION, GGUF_DEFAULT_ALIGNMENT, GGUFValueType, GGUFWriter
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file, require_disk_space
from groundup.hub.gguf.header import MetaValue
from groundup.hub.gguf.hyperparameters import ARCHITECTURE, write_config
from groundup.hub.gguf.mixture import Fallback, choose_type
from groundup.hub.gguf.quantize import quantize
from groundup.hub.gguf.types import FILE_TYPE_NUMBERS, FileType, TensorType
from groundup.hub.gguf.weights import ROPE_FACTORS, gguf_weight_table, table_shapes
from groundup.model import ModelConfig
from groundup.model.weight_map import Weight


@dataclass(frozen=True, slots=True)
class WrittenGguf:
    """Result of an export to GGUF.

    Attributes:
        types: GGUF tensor name -> name of the tensor's type.
        fallbacks: tensors that have another type than intended, because their shape does not fit the intended type.
        notes: notes for the user about differences between llama.cpp and groundup.
        n_bytes: size of the file in bytes.
    """

    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    notes: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _Planned:
    """A tensor that will be written. Its shape and type are known before its values are computed."""

    shape: tuple[int, ...]
    kind: TensorType
    make: Callable[[], Tensor]

    @property
    def n_bytes(self) -> int:
        rows = int(np.prod(self.shape[:-1], dtype=np.int64))
        return rows * self.kind.row_bytes(self.shape[-1])


def write_gguf(
    path: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    tokenizer_metadata: Mapping[str, MetaValue],
    file_type: FileType = "f16",
    *,
    name: str | None = None,
    advance: Callable[[float], object] = lambda _: None,
) -> WrittenGguf:
    """Write a model as one GGUF file.

    Args:
        path: output file.
        config: model config.
        state: state dict, or a lazy mapping. A tensor is accessed only when it is written.
        tokenizer_metadata: all keys "tokenizer.*". If there is no tokenizer, `tokenizer.ggml.model` is "no_vocab".
        file_type: type of most matrices. Norms, biases and sensitive matrices are written with more bits.
        name: name of the model.
        advance: function that is called with the number of bytes written since the last call.

    Returns:
        The types, fallbacks and notes of the export.

    Raises:
        FormatError: llama.cpp does not support the model, or a weight is not finite or out of range for the type. No
            file is written.
        ResourceError: there is not enough disk space.
    """
    hyperparameters, rope_factors, notes = write_config(config)
    planned, fallbacks = _plan(config, state, file_type)
    if rope_factors is not None:
        shape = tuple(rope_factors.shape)
        planned[ROPE_FACTORS] = _Planned(
            shape, _type_of(ROPE_FACTORS, shape, file_type, config)[0], lambda: rope_factors
        )
    size = sum(_padded(tensor.n_bytes) for tensor in planned.values())
    require_disk_space(path.parent, size + 50_000_000, "the GGUF file")
    general: dict[str, MetaValue] = {
        "general.type": "model",
        "general.name": name or path.stem,
        "general.file_type": int(FILE_TYPE_NUMBERS[file_type]),
        "general.quantization_version": GGML_QUANT_VERSION,
    }
    metadata = hyperparameters | general | dict(tokenizer_metadata)
    with atomic_file(path) as temporary:
        _write_header(temporary, metadata, planned)
        with temporary.open("ab") as file:
            file.write(b"\0" * (_padded(file.tell()) - file.tell()))
            for name_, tensor in planned.items():
                made = tensor.make()
                if tuple(made.shape) != tensor.shape:
                    raise _shape_error(name_, tuple(made.shape), tensor.shape)
                content = quantize(name_, made, tensor.kind)
                file.write(content.data)
                file.write(b"\0" * (_padded(content.nbytes) - content.nbytes))
                advance(content.nbytes)
    return WrittenGguf(
        {name: tensor.kind.name for name, tensor in planned.items()}, tuple(fallbacks), notes, path.stat().st_size
    )


def _plan(
    config: ModelConfig, state: Mapping[str, Tensor], file_type: FileType
) -> tuple[dict[str, _Planned], list[Fallback]]:
    table = list(gguf_weight_table(config))
    holders = {weight.file_name: weight for weight in table}
    missing = [name for weight in table for name in weight.names if name not in state]
    if missing:
        raise FormatError(
            f"no weight {missing[0]!r}",
            rule=f"a {config.family} model of this size requires it",
            fix="The model is incomplete: download it again.",
        )
    planned: dict[str, _Planned] = {}
    fallbacks: list[Fallback] = []
    for name, shape in table_shapes(config, table).items():
        kind, fallback = _type_of(name, shape, file_type, config)
        fallbacks += [fallback] if fallback is not None else []
        planned[name] = _Planned(shape, kind, partial(_made, holders[name], state))
    return planned, fallbacks


def _made(weight: Weight, state: Mapping[str, Tensor]) -> Tensor:
    # Operations on weights are computed in fp32, regardless of the model's dtype.
    return weight.write(lambda name: state[name].detach().cpu().to(torch.float32))


def _shape_error(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> FormatError:
    return FormatError(
        f"{name} has shape {found}",
        rule=f"the config requires {expected}",
        fix="The weights and the config do not belong together: download the model again.",
    )


def _type_of(
    name: str, shape: tuple[int, ...], file_type: FileType, config: ModelConfig
) -> tuple[TensorType, Fallback | None]:
    return choose_type(name, shape, file_type, n_layers=config.n_layers, tied=config.tie_embeddings)


def _write_header(path: Path, metadata: Mapping[str, MetaValue], planned: Mapping[str, _Planned]) -> None:
    writer = GGUFWriter(path, str(metadata[ARCHITECTURE]))
    for key, value in metadata.items():
        if key != ARCHITECTURE and not (isinstance(value, str | list) and not value):
            writer.add_key_value(key, *_typed(value))
    for name, tensor in planned.items():
        rows_of_bytes = (*tensor.shape[:-1], tensor.kind.row_bytes(tensor.shape[-1]))
        writer.add_tensor_info(name, rows_of_bytes, np.dtype(np.uint8), tensor.n_bytes, tensor.kind.library_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _typed(value: MetaValue) -> tuple[Any, GGUFValueType, GGUFValueType | None]:
    """Return a value with the GGUF type that llama.cpp expects, and for an array also the type of its items."""
    if isinstance(value, bool):
        return value, GGUFValueType.BOOL, None
    if isinstance(value, int):
        return value, GGUFValueType.UINT32 if value >= 0 else GGUFValueType.INT32, None
    if isinstance(value, float):
        return value, GGUFValueType.FLOAT32, None
    if isinstance(value, str):
        return value, GGUFValueType.STRING, None
    items = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return items, GGUFValueType.ARRAY, GGUFValueType.UINT8
    kinds = {str: GGUFValueType.STRING, float: GGUFValueType.FLOAT32, int: GGUFValueType.INT32}
    return items, GGUFValueType.ARRAY, kinds[type(items[0])]


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // GGUF_DEFAULT_ALIGNMENT) * GGUF_DEFAULT_ALIGNMENT
