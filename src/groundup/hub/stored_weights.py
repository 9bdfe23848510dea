"""The weights of a model directory with groundup's names: memory-mapped reading, and writing from any mapping."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.families import Head, weight_table
from groundup.hub.weight_files import SHARD_BYTES, WeightFiles, write_weight_files
from groundup.model import ModelConfig, SequenceClassifier, Transformer
from groundup.model.weight_map import EMBEDDING, HEAD, Weight, shapes

# Tensors in old files that the config determines: causal masks, rotary tables.
_DERIVED = re.compile(r"\.(attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$")


class StoredWeights(Mapping[str, Tensor]):
    """The weights of a model directory with groundup's names. Tensors are memory-mapped on access."""

    def __init__(self, directory: Path, config: ModelConfig, n_labels: int | None = None) -> None:
        """Check names, types and shapes against the config before any tensor is allocated.

        Args:
            directory: model directory.
            config: model config.
            n_labels: number of labels of a classifier; None: a language model.

        Raises:
            FormatError: missing or damaged files, or tensors that are missing, unexpected, or of another shape.
        """
        self.directory = directory
        self.config = config
        self._files = WeightFiles(directory)
        self.tied = n_labels is None and config.tie_embeddings
        self._source = self._matched(n_labels)

    def __getitem__(self, name: str) -> Tensor:
        return self._read(name, transient=False)

    def __iter__(self) -> Iterator[str]:
        yield from self._source
        if self.tied:
            yield HEAD

    def __len__(self) -> int:
        return len(self._source) + self.tied

    def load(self, name: str, dtype: torch.dtype | None, device: str | torch.device = "cpu") -> Tensor:
        """Return a contiguous tensor in a dtype (None: as stored) and on a device.

        Without a conversion, the tensor stays memory-mapped. Otherwise it is copied, and the file's pages are released.

        Args:
            name: groundup's name of the tensor.
            dtype: data type; None: as stored.
            device: device of the tensor.

        Returns:
            The tensor.
        """
        stored_name, weight = self._source[self._own(name)]
        stored = self._files.dtype(stored_name)
        if torch.device(device).type == "cpu" and dtype in (None, stored) and not weight.operations:
            return self[name]
        transient = self._read(name, transient=True)
        return torch.empty(transient.shape, dtype=dtype or stored, device=device).copy_(transient)

    def _own(self, name: str) -> str:
        return EMBEDDING if self.tied and name == HEAD else name

    def _read(self, name: str, *, transient: bool) -> Tensor:
        stored_name, weight = self._source[self._own(name)]
        return weight.read(self._files.tensor(stored_name, transient=transient))[self._own(name)]

    def _matched(self, n_labels: int | None) -> dict[str, tuple[str, Weight]]:
        """Return groundup's names -> name in the files, and the table's entry."""
        found = self._found("language" if n_labels is None else "labels")
        expected = shapes(found.values(), _our_shapes(self.config, n_labels))
        for name, weight in found.items():
            self._files.dtype(name)
            if self._files.shape(name) != expected[weight.file_name]:
                raise FormatError(
                    f"{self.directory}: {name} has the shape {self._files.shape(name)}",
                    rule=f"config.json requires {expected[weight.file_name]}",
                    fix="The files do not belong together: download the model again.",
                )
        return {name: (stored_name, weight) for stored_name, weight in found.items() for name in weight.names}

    def _found(self, head: Head) -> dict[str, Weight]:
        base, left, found = self.config.declared.huggingface.base, self._unprefixed_names(), {}
        for weight in weight_table(self.config, head):
            # Without a head, files omit the base prefix; a tied model may keep either copy.
            names = [weight.file_name, weight.file_name.removeprefix(base)]
            names += [HEAD] if HEAD in weight.names or (self.tied and EMBEDDING in weight.names) else []
            name = next((name for name in names if name in left), None)
            if name is None:
                raise FormatError(
                    f"{self.directory}: no tensor {weight.file_name!r}",
                    rule=f"required for a {self.config.family} model of {self.config.n_layers} layers",
                    fix="The files are incomplete or of another architecture: download them again.",
                )
            found[left.pop(name)] = weight
        for copy in {HEAD, self.config.declared.huggingface.head} & set(left) if self.config.tie_embeddings else ():
            embedding = next(name for name, weight in found.items() if EMBEDDING in weight.names)
            self._require_copy(left.pop(copy), embedding)
        left = {name: stored for name, stored in left.items() if not _DERIVED.search(name)}
        if left:
            raise FormatError(
                f"{self.directory}: unexpected tensors {', '.join(sorted(left)[:5])}",
                rule=f"a {self.config.family} model of this size does not have them",
                fix="groundup does not support this variant of the model: choose another one.",
            )
        return found

    def _unprefixed_names(self) -> dict[str, str]:
        """Return names without the prefixes of a multimodal model -> names in the files."""
        names = {name: name for name in self._files.names}
        wrapper = self.config.declared.huggingface.within
        if wrapper is None:
            return names
        for name in [name for name in names if name.startswith(wrapper.skipped_prefixes)]:
            del names[name]
        for prefix, alone in wrapper.prefixes.items():
            for name in [name for name in names if name.startswith(prefix)]:
                names[alone + name.removeprefix(prefix)] = names.pop(name)
        return names

    def _require_copy(self, head: str, embedding: str) -> None:
        same = self._files.shape(head) == self._files.shape(embedding) and torch.equal(
            self._files.tensor(head, transient=True), self._files.tensor(embedding, transient=True)
        )
        if not same:
            raise FormatError(
                f"{self.directory}: {HEAD} differs from {embedding}",
                rule="config.json requires tied embeddings (tie_word_embeddings)",
                fix="If both are part of the model, set tie_word_embeddings to false in config.json.",
            )


def write_stored(
    directory: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    head: Head = "language",
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write a state dict in Hugging Face files.

    Args:
        directory: output directory.
        config: model config.
        state: state dict.
        head: type of the output head.
        dtype: data type of all tensors of a language model; None: unchanged.
        shard_bytes: maximum size of a weights file.

    Returns:
        The files written.

    Raises:
        FormatError: the state dict does not have exactly the tensors of `config`.
    """
    table = list(weight_table(config, head))
    expected = {name for weight in table for name in weight.names}
    wrong = (expected ^ set(state)) - ({HEAD} if config.tie_embeddings else set())
    if wrong:
        raise FormatError(
            f"weights: {', '.join(sorted(wrong)[:5])}",
            rule=f"missing or unexpected tensors for a {config.family} model of this size",
            fix="Merge or remove adapters and other additions first.",
        )
    if dtype is None:
        sizes = {weight.file_name: sum(state[name].nbytes for name in weight.names) for weight in table}
    else:  # Computed from shapes, because access would dequantize each tensor twice.
        shapes = _our_shapes(config, None)
        counts = {name: shape.numel() * dtype.itemsize for name, shape in shapes.items()}
        sizes = {weight.file_name: sum(counts[name] for name in weight.names) for weight in table}

    def converted(name: str) -> Tensor:
        return state[name] if dtype is None else state[name].to(dtype)

    tensors = ((weight.file_name, weight.write(converted)) for weight in table)
    return write_weight_files(directory, sizes, tensors, shard_bytes=shard_bytes)


def _our_shapes(config: ModelConfig, n_labels: int | None) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = Transformer(config) if n_labels is None else SequenceClassifier(config, n_labels)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
