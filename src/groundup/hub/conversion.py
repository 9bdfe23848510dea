"""Conversion of a Hugging Face model directory or a GGUF file to a groundup model directory, one tensor at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.core.console import Console
from groundup.core.errors import FormatError
from groundup.core.files import read_json, write_json
from groundup.hub import SpecialTokenIds, open_weights, save_weights
from groundup.hub.directory import GENERATION_CONFIG
from groundup.hub.gguf import GgufModel, tokenizer_from_gguf
from groundup.hub.source import copy_notices, license_of
from groundup.hub.weight_files import is_gguf
from groundup.model import ModelConfig
from groundup.model.flops import parameter_count
from groundup.model.weight_map import EMBEDDING
from groundup.tokenizer import Tokenizer

Dtype = Literal["float32", "bfloat16", "float16"]
_TORCH_NAMES: dict[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # GGUF name -> torch name.
_GENERATION_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Result of an import.

    Attributes:
        config: model config.
        format: file format of the source, such as "safetensors, bfloat16".
        dtype: data type of the written weights.
        license: license that the source specifies; empty if the source does not specify a license.
        limits: key of `verification.round_trip.LIMITS`, which contains the tolerances of the round-trip check.
    """

    config: ModelConfig
    format: str
    dtype: str
    license: str
    limits: str


def convert_model(
    found: Path, target: Path, dtype: Dtype | None, console: Console, *, notices: Path | None = None
) -> ImportResult:
    """Write a model directory: config, weights, tokenizer, generation config, and license files.

    Args:
        found: model directory or GGUF file.
        target: output directory, which must not exist.
        dtype: data type of the written weights. If None, weights keep their data type, and quantized weights are
            dequantized to fp32, which is exact.
        console: output for notes and progress.
        notices: directory with the license files that belong to a GGUF file.

    Returns:
        A description of the source and of the written model.

    Raises:
        DataError, FormatError, ConfigError: a file is missing, damaged or malicious, or the model is unsupported.
    """
    target.mkdir(parents=True)
    result = (
        _from_gguf(found, target, dtype, console) if is_gguf(found) else _from_folder(found, target, dtype, console)
    )
    folder = found if found.is_dir() else notices
    if folder is not None:
        copy_notices(folder, target)
    return result


class _Counted(Mapping[str, Tensor]):
    """Mapping of weights that calls `count` with the number of values of each tensor that is accessed."""

    def __init__(self, weights: Mapping[str, Tensor], count: Callable[[int], None]) -> None:
        self._weights, self._count = weights, count

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._weights[name]
        self._count(tensor.numel())
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def _from_folder(found: Path, target: Path, dtype: Dtype | None, console: Console) -> ImportResult:
    tokenizer, stored = Tokenizer.load(found), open_weights(found)
    config = stored.config
    sampling = _generation_config(found, config)
    stored_dtype = str(stored[EMBEDDING].dtype).removeprefix("torch.")
    kinds = {stored[name].dtype for name in stored}  # Norm weights may have another dtype than the matrices.
    with console.progress("copying", parameter_count(config), "weights") as bar:
        save_weights(
            target,
            config,
            _Counted(stored, bar.advance),
            SpecialTokenIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids),
            dtype=getattr(torch, dtype) if dtype else kinds.pop() if len(kinds) == 1 else None,
        )
    tokenizer.save(target)
    if sampling is not None:
        write_json(target / GENERATION_CONFIG, sampling)
    limits = "exact" if dtype in (None, stored_dtype, "float32") else _limits(dtype)
    return ImportResult(config, f"safetensors, {stored_dtype}", dtype or stored_dtype, license_of(found), limits)


def _generation_config(found: Path, config: ModelConfig) -> dict[str, Any] | None:
    """Return the content of the source's `generation_config.json`; None if the file does not exist.

    Raises:
        FormatError: the id of the EOS token is not in the vocabulary, so generation would never end.
    """
    path = found / GENERATION_CONFIG
    if not path.is_file():
        return None
    named = dict(read_json(path, max_bytes=_GENERATION_BYTES))
    ends = named.get("eos_token_id")
    beyond = [i for i in (ends if isinstance(ends, list) else [ends]) if isinstance(i, int) and i >= config.vocab_size]
    if beyond:
        raise FormatError(
            f"{path}: eos_token_id = {beyond[0]}",
            rule=f"token ids of this model are from 0 to {config.vocab_size - 1:,}",
            fix="Correct the file, or download the model again.",
        )
    return named


def _from_gguf(found: Path, target: Path, dtype: Dtype | None, console: Console) -> ImportResult:
    model = GgufModel(found)
    files = tokenizer_from_gguf(model.metadata)
    for note in files.notes:
        console.note(note)
    files.save(target)
    tokenizer = Tokenizer.load(target)
    types = Counter(model.types.values())
    quantized = types.keys() - _TORCH_NAMES.keys()
    # F32 is ignored here, because norm weights are always F32.
    mostly = max(types.keys() - {"F32"}, key=lambda kind: types[kind], default="F32")
    written = dtype or ("float32" if quantized else _TORCH_NAMES[mostly])
    with console.progress("copying", parameter_count(model.config), "weights") as bar:
        save_weights(
            target,
            model.config,
            _Counted(model.state(getattr(torch, written)), bar.advance),
            SpecialTokenIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, files.stop_ids),
            dtype=getattr(torch, written),
        )
    listed = ", ".join(f"{count} tensors {kind}" for kind, count in types.most_common())
    license = model.metadata.get("general.license")
    limits = "q8_0" if quantized else _limits(_TORCH_NAMES[mostly])  # llama.cpp rounds activations.
    return ImportResult(model.config, f"GGUF, {listed}", written, license if isinstance(license, str) else "", limits)


def _limits(dtype: str) -> str:
    return {"float32": "exact", "float16": "f16", "bfloat16": "bf16"}[dtype]
