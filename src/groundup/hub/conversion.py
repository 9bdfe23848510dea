"""A model of others, found on this machine, written as a model directory of ours, tensor by tensor."""

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
from groundup.hub.source import copy_notices, is_gguf, licence_of
from groundup.model import ModelConfig
from groundup.model.flops import parameter_count
from groundup.model.weight_map import EMBEDDING
from groundup.tokenizer import Tokenizer

Dtype = Literal["float32", "bfloat16", "float16"]
_PLAIN: dict[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # GGUF's words for what torch has
_GENERATION_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What was read.

    Attributes:
        format: of the source, in words.
        dtype: of the weights as they were written.
        licence: as the source names it; "" where it does not.
        limits: the gate's, for an engine that runs the source itself.
    """

    config: ModelConfig
    format: str
    dtype: str
    licence: str
    limits: str


def take(found: Path, target: Path, dtype: Dtype | None, console: Console, *, notices: Path | None = None) -> Taken:
    """Write a model directory: config, weights, tokenizer, generation config, and the licence's text.

    Args:
        found: a model directory or a GGUF file.
        target: a directory that is not there yet.
        dtype: of the weights; None: as they are; of quantized ones fp32, which holds each value exactly.
        notices: of a GGUF file, a folder whose licence files are the model's.

    Raises:
        DataError, FormatError, ConfigError: files that are missing, damaged, hostile, or of another kind of model.
    """
    target.mkdir(parents=True)
    taken = _from_gguf(found, target, dtype, console) if is_gguf(found) else _from_folder(found, target, dtype, console)
    folder = found if found.is_dir() else notices
    if folder is not None:
        copy_notices(folder, target)
    return taken


class _Counted(Mapping[str, Tensor]):
    """Weights that are counted when they are asked for."""

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


def _from_folder(found: Path, target: Path, dtype: Dtype | None, console: Console) -> Taken:
    tokenizer, stored = Tokenizer.load(found), open_weights(found)
    config = stored.config
    sampling = _generation_config(found, config)
    theirs = str(stored[EMBEDDING].dtype).removeprefix("torch.")
    kinds = {stored[name].dtype for name in stored}  # norms may be in another than the matrices
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
    limits = "exact" if dtype in (None, theirs, "float32") else _limits(dtype)
    return Taken(config, f"safetensors, {theirs}", dtype or theirs, licence_of(found), limits)


def _generation_config(found: Path, config: ModelConfig) -> dict[str, Any] | None:
    """What its makers found to sample well; None where they do not say.

    Raises:
        FormatError: it ends texts with a token that the model does not have: it never would.
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
            rule=f"the ids of this model are 0 to {config.vocab_size - 1:,}",
            fix="Correct it there, or get the model again.",
        )
    return named


def _from_gguf(found: Path, target: Path, dtype: Dtype | None, console: Console) -> Taken:
    model = GgufModel(found)
    files = tokenizer_from_gguf(model.metadata)
    for note in files.notes:
        console.note(note)
    files.save(target)
    tokenizer = Tokenizer.load(target)
    types = Counter(model.types.values())
    quantized = types.keys() - _PLAIN.keys()
    # Norms are fp32 whatever the rest is.
    mostly = max(types.keys() - {"F32"}, key=lambda kind: types[kind], default="F32")
    written = dtype or ("float32" if quantized else _PLAIN[mostly])
    with console.progress("copying", parameter_count(model.config), "weights") as bar:
        save_weights(
            target,
            model.config,
            _Counted(model.state(getattr(torch, written)), bar.advance),
            SpecialTokenIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, files.stop_ids),
            dtype=getattr(torch, written),
        )
    listed = ", ".join(f"{count} tensors {kind}" for kind, count in types.most_common())
    licence = model.metadata.get("general.license")
    limits = "q8_0" if quantized else _limits(_PLAIN[mostly])  # what llama.cpp's arithmetic adds
    return Taken(model.config, f"GGUF, {listed}", written, licence if isinstance(licence, str) else "", limits)


def _limits(dtype: str) -> str:
    return {"float32": "exact", "float16": "f16", "bfloat16": "bf16"}[dtype]
