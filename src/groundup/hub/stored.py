"""Our state dict in Hugging Face's files: read where it lies, and written from any mapping of tensors."""

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

# Tensors that old files carry though the config already says them: causal masks, rotary tables.
_DERIVED = re.compile(r"\.(attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$")


class StoredWeights(Mapping[str, Tensor]):
    """The weights of a model directory under our names. A tensor is mapped when it is asked for; nothing is copied."""

    def __init__(self, directory: Path, config: ModelConfig, n_labels: int | None = None) -> None:
        """Compare names, types and shapes with what the config says, before anything of that size is made.

        Args:
            n_labels: of a classifier; None: a language model.

        Raises:
            FormatError: no such files, a damaged one, or tensors that are missing, left over, or of another shape.
        """
        self.directory = directory
        self.config = config
        self._files = WeightFiles(directory)
        self.tied = n_labels is None and config.tie_embeddings
        self._source = self._matched(n_labels)

    def __getitem__(self, name: str) -> Tensor:
        return self._read(name, passing=False)

    def __iter__(self) -> Iterator[str]:
        yield from self._source
        if self.tied:
            yield HEAD

    def __len__(self) -> int:
        return len(self._source) + self.tied

    def take(self, name: str, dtype: torch.dtype | None, device: str | torch.device = "cpu") -> Tensor:
        """One tensor, contiguous, in a dtype (None: its own) and on a device.

        What needs no change stays in its file. Else it is read and changed, and the file's pages are let go of.
        """
        theirs, weight = self._source[self._own(name)]
        stored = self._files.dtype(theirs)
        if torch.device(device).type == "cpu" and dtype in (None, stored) and not weight.operations:
            return self[name]
        passing = self._read(name, passing=True)
        return torch.empty(passing.shape, dtype=dtype or stored, device=device).copy_(passing)

    def _own(self, name: str) -> str:
        return EMBEDDING if self.tied and name == HEAD else name

    def _read(self, name: str, *, passing: bool) -> Tensor:
        theirs, weight = self._source[self._own(name)]
        return weight.read(self._files.tensor(theirs, passing=passing))[self._own(name)]

    def _matched(self, n_labels: int | None) -> dict[str, tuple[str, Weight]]:
        """Our names -> their name as it stands in the files, and the table's entry."""
        found = self._found("language" if n_labels is None else "labels")
        expected = shapes(found.values(), _our_shapes(self.config, n_labels))
        for name, weight in found.items():
            self._files.dtype(name)
            if self._files.shape(name) != expected[weight.file_name]:
                raise FormatError(
                    f"{self.directory}: {name} has the shape {self._files.shape(name)}",
                    rule=f"by its config.json it has {expected[weight.file_name]}",
                    fix="The files do not belong together; get the model again.",
                )
        return {ours: (name, weight) for name, weight in found.items() for ours in weight.names}

    def _found(self, head: Head) -> dict[str, Weight]:
        base, left, found = self.config.declared.huggingface.base, self._named_alone(), {}
        for weight in weight_table(self.config, head):
            # A model that was saved without its head leaves the base out; one that is tied may keep either copy.
            names = [weight.file_name, weight.file_name.removeprefix(base)]
            names += [HEAD] if HEAD in weight.names or (self.tied and EMBEDDING in weight.names) else []
            name = next((name for name in names if name in left), None)
            if name is None:
                raise FormatError(
                    f"{self.directory}: no tensor {weight.file_name!r}",
                    rule=f"a {self.config.family} model of {self.config.n_layers} layers has it",
                    fix="The files are incomplete or of another architecture; get them again.",
                )
            found[left.pop(name)] = weight
        for copy in {HEAD, self.config.declared.huggingface.head} & set(left) if self.config.tie_embeddings else ():
            embedding = next(name for name, weight in found.items() if EMBEDDING in weight.names)
            self._require_copy(left.pop(copy), embedding)
        left = {name: stored for name, stored in left.items() if not _DERIVED.search(name)}
        if left:
            raise FormatError(
                f"{self.directory}: tensors {', '.join(sorted(left)[:5])}",
                rule=f"a {self.config.family} model of this shape does not have them",
                fix="The model is of a variant that groundup does not read.",
            )
        return found

    def _named_alone(self) -> dict[str, str]:
        """The names that tensors have where the model is no part of a larger one -> those in the files."""
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
            self._files.tensor(head, passing=True), self._files.tensor(embedding, passing=True)
        )
        if not same:
            raise FormatError(
                f"{self.directory}: {HEAD} differs from {embedding}",
                rule="config.json says that they are one (tie_word_embeddings)",
                fix="Ask who made it which is meant; if both are, set tie_word_embeddings to false in config.json.",
            )


def write_stored(
    directory: Path,
    config: ModelConfig,
    ours: Mapping[str, Tensor],
    head: Head = "language",
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write a state dict of ours as Hugging Face's files.

    Args:
        dtype: of all tensors of a language model; None: each keeps its own.

    Raises:
        FormatError: it has not exactly the tensors of this shape.
    """
    table = list(weight_table(config, head))
    expected = {name for weight in table for name in weight.names}
    wrong = (expected ^ set(ours)) - ({HEAD} if config.tie_embeddings else set())
    if wrong:
        raise FormatError(
            f"weights: {', '.join(sorted(wrong)[:5])}",
            rule=f"exactly the tensors of a {config.family} model of this shape are written",
            fix="Merge or remove what was added to the model first.",
        )
    if dtype is None:
        sizes = {weight.file_name: sum(ours[name].nbytes for name in weight.names) for weight in table}
    else:  # known without asking: where a tensor is dequantized for each question, that would double the work
        shapes = _our_shapes(config, None)
        counts = {name: shape.numel() * dtype.itemsize for name, shape in shapes.items()}
        sizes = {weight.file_name: sum(counts[name] for name in weight.names) for weight in table}

    def one(name: str) -> Tensor:
        return ours[name] if dtype is None else ours[name].to(dtype)

    tensors = ((weight.file_name, weight.write(one)) for weight in table)
    return write_weight_files(directory, sizes, tensors, shard_bytes=shard_bytes)


def _our_shapes(config: ModelConfig, n_labels: int | None) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = Transformer(config) if n_labels is None else SequenceClassifier(config, n_labels)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
