"""A model out of a GGUF file: its shape, its tensors under our names, and whatever else the file says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from groundup.core.errors import ConfigError, FormatError
from groundup.hub.gguf.container import GgufFile
from groundup.hub.gguf.header import MetaValue
from groundup.hub.gguf.hyperparameters import ARCHITECTURE, config_from_metadata
from groundup.hub.gguf.weights import ROPE_FACTORS, gguf_weight_table, table_shapes
from groundup.model import ModelConfig
from groundup.model.weight_map import EMBEDDING, HEAD, Weight


class GgufModel:
    """A language model in a GGUF file, opened for reading.

    Attributes:
        config: its shape.
        metadata: all that the file says of itself; the tokenizer's keys begin with "tokenizer.".
        types: the type of each tensor, by the file's name for it.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and check that it holds what its metadata announces; no weight is read yet.

        Raises:
            FormatError: no GGUF file, a damaged or hostile one; an architecture or a variant that is not known; tensors
                missing, left over, or of another shape; sizes that cannot be.
        """
        file = GgufFile(path)
        factors = file.read(ROPE_FACTORS) if ROPE_FACTORS in file.tensors else None
        found = {name: info.shape for name, info in file.tensors.items()}
        try:
            self.config: ModelConfig = config_from_metadata(file.metadata, found, factors)
        except (FormatError, ConfigError) as error:
            raise FormatError(f"{path}: {error.value}", rule=error.rule, fix=error.fix) from None
        self.metadata: Mapping[str, MetaValue] = file.metadata
        self.types: Mapping[str, str] = {name: info.kind.name for name, info in file.tensors.items() if info.kind}
        self._file = file
        self._holders = _holders(path, self.config, found)

    @property
    def architecture(self) -> str:
        """As GGUF names it."""
        return str(self.metadata[ARCHITECTURE])

    @property
    def name(self) -> str | None:
        """What its maker called it."""
        name = self.metadata.get("general.name")
        return name if isinstance(name, str) else None

    def state(self, dtype: torch.dtype = torch.float32) -> Mapping[str, Tensor]:
        """Our state dict in this dtype; each tensor is read when it is asked for, and not kept."""
        return _State(self._file, self._holders, dtype)


class _State(Mapping[str, Tensor]):
    def __init__(self, file: GgufFile, holders: Mapping[str, Weight], dtype: torch.dtype) -> None:
        self._file, self._holders, self._dtype = file, holders, dtype
        # What is still in use is handed out again: a tied head is the embedding, not a second one beside it.
        self._in_use: WeakValueDictionary[str, Tensor] = WeakValueDictionary()

    def __getitem__(self, name: str) -> Tensor:
        holder = self._holders[name]
        name = name if name in holder.names else EMBEDDING
        tensor = self._in_use.get(name)
        if tensor is None:
            # What operations compute is computed on the numbers that the file has: norms are in fp32 there.
            exact = len(self._file.tensors[holder.file_name].shape) == 1
            theirs = self._file.read(holder.file_name, torch.float32 if exact else self._dtype)
            self._in_use[name] = tensor = holder.read(theirs)[name].to(self._dtype)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)


def _holders(path: Path, config: ModelConfig, found: Mapping[str, tuple[int, ...]]) -> dict[str, Weight]:
    """Which tensor of theirs holds each of ours; a tied head is held by the embedding."""
    table: list[Weight] = []
    for weight in gguf_weight_table(config):
        if weight.file_name not in found:
            raise FormatError(
                f"{path}: no tensor {weight.file_name!r}",
                rule=f"a {config.family} model of {config.n_layers} layers has it",
                fix="The file is incomplete, or of a variant that is not read; get it again, or another one.",
            )
        table.append(weight)
    left = sorted(found.keys() - {weight.file_name for weight in table} - {ROPE_FACTORS})
    if left:
        raise FormatError(
            f"{path}: tensors {', '.join(repr(name) for name in left[:5])}" + (", ..." * (len(left) > 5)),
            rule=f"a {config.family} model of this shape does not have them",
            fix="The model is of a variant that groundup does not read; choose another one.",
        )
    # First the size of what the heads write, which is also that of tables made for a model: the file must bear it out.
    _check_shape(path, "blk.0.attn_output.weight", found, (config.dim, config.n_heads * config.head_dim))
    for name, shape in table_shapes(config, table).items():
        _check_shape(path, name, found, shape)
    holders = {name: weight for weight in table for name in weight.names}
    return holders | ({HEAD: holders[EMBEDDING]} if config.tie_embeddings else {})


def _check_shape(path: Path, name: str, found: Mapping[str, tuple[int, ...]], shape: tuple[int, ...]) -> None:
    if found[name] != shape:
        raise FormatError(
            f"{path}: tensor {name!r} of shape {found[name]}",
            rule=f"a model with these sizes in its metadata has {shape} there",
            fix="The file is damaged; get it again.",
        )
