"""Reading and writing of a model directory's weights under groundup's parameter names. Reading is memory-mapped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.compressed_tensors import CompressedFiles, CompressionScheme
from groundup.hub.families import Head, weight_table
from groundup.hub.weight_files import SHARD_BYTES, WeightFiles, write_weight_files
from groundup.model import ModelConfig, SequenceClassifier, Transformer
from groundup.model.quantized import QuantizedWeight
from groundup.model.weight_map import EMBEDDING, HEAD, Weight, shapes

# Old files contain buffers that can be computed from the config: causal masks and rotary frequencies.
_DERIVED = re.compile(r"\.(attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$")


class StoredWeights(Mapping[str, Tensor]):
    """Mapping from groundup's parameter names to the weights of a model directory.

    Tensors are memory-mapped when they are accessed.
    """

    def __init__(
        self,
        directory: Path,
        config: ModelConfig,
        n_labels: int | None = None,
        scheme: CompressionScheme | None = None,
    ) -> None:
        """Open the weight files, and check that names, dtypes and shapes match the config. No tensor is loaded.

        Args:
            directory: model directory.
            config: model config.
            n_labels: number of labels of a classifier; None for a language model.
            scheme: how the matrices are quantized; None if they are not quantized.

        Raises:
            FormatError: a file is missing or damaged, or a tensor is missing, unexpected, or has another shape than
                the config requires.
        """
        self.directory = directory
        self.config = config
        self._files = WeightFiles(directory) if scheme is None else CompressedFiles(directory, scheme)
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
        """Return a contiguous tensor with the given dtype on the given device.

        If the stored tensor can be used directly, it stays memory-mapped. Otherwise it is copied, and the memory-mapped
        pages of the file are released.

        Args:
            name: groundup's name of the parameter.
            dtype: data type of the tensor. If None, the tensor keeps its stored data type.
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

    def quantized(self, name: str) -> QuantizedWeight | None:
        """Return a matrix in its quantized form; None if it is not quantized, or not stored row by row."""
        stored_name, weight = self._source[self._own(name)]
        if not isinstance(self._files, CompressedFiles) or not weight.keeps_rows:
            return None
        found, own = self._files.quantized(stored_name), self._own(name)
        return None if found is None else found.map_rows(lambda rows: weight.read(rows)[own])

    def _own(self, name: str) -> str:
        return EMBEDDING if self.tied and name == HEAD else name

    def _read(self, name: str, *, transient: bool) -> Tensor:
        stored_name, weight = self._source[self._own(name)]
        return weight.read(self._files.tensor(stored_name, transient=transient))[self._own(name)]

    def _matched(self, n_labels: int | None) -> dict[str, tuple[str, Weight]]:
        """Return groundup's parameter name -> (tensor name in the files, entry of the weight table)."""
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
            # Models that were saved without an output head omit the base prefix. A file of a model with tied embeddings
            # may contain the embedding, the output head, or both.
            names = [weight.file_name, weight.file_name.removeprefix(base)]
            names += [HEAD] if HEAD in weight.names or (self.tied and EMBEDDING in weight.names) else []
            name = next((name for name in names if name in left), None)
            if name is None:
                raise FormatError(
                    f"{self.directory}: no tensor {weight.file_name!r}",
                    rule=f"required for a {self.config.family} model with {self.config.n_layers} layers",
                    fix="The files are incomplete or have another architecture: download them again.",
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
                fix="groundup does not support this variant of the model: choose another model.",
            )
        return found

    def _unprefixed_names(self) -> dict[str, str]:
        """Return each tensor name without the prefixes of a multimodal model -> name of the tensor in the files."""
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
    """Write a state dict to safetensors files with Hugging Face's tensor names.

    Args:
        directory: output directory.
        config: model config.
        state: state dict with groundup's parameter names.
        head: type of the output head.
        dtype: data type of all written tensors; only for language models. If None, tensors keep their data type.
        shard_bytes: maximum size of a weight file in bytes.

    Returns:
        The files written.

    Raises:
        FormatError: the state dict lacks a tensor that `config` requires, or has additional tensors.
    """
    table = list(weight_table(config, head))
    expected = {name for weight in table for name in weight.names}
    wrong = (expected ^ set(state)) - ({HEAD} if config.tie_embeddings else set())
    if wrong:
        raise FormatError(
            f"weights: {', '.join(sorted(wrong)[:5])}",
            rule=f"missing or unexpected tensors for a {config.family} model of this size",
            fix="Merge or remove adapters and other additional layers first.",
        )
    if dtype is None:
        sizes = {weight.file_name: sum(state[name].nbytes for name in weight.names) for weight in table}
    else:  # Sizes are computed from shapes, because an access to the mapping may dequantize a tensor.
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
