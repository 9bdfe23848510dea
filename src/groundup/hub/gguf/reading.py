"""Reading of language models from GGUF files: model config, state dict with groundup's names, and metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from groundup.core.errors import ConfigError, FormatError
from groundup.hub.gguf.container import GgufFile
from groundup.hub.gguf.header import MetaValue
from groundup.hub.gguf.hyperparameters import ARCHITECTURE, config_from_metadata
from groundup.hub.gguf.stored_matrices import is_exact, nearest_bits, stored_matrix
from groundup.hub.gguf.types import PLAIN_TYPES
from groundup.hub.gguf.vocabulary_import import tokenizer_from_gguf
from groundup.hub.gguf.weights import ROPE_FACTORS, gguf_weight_table, table_shapes
from groundup.model import ModelConfig, Transformer
from groundup.model.layers import Embedding, Linear
from groundup.model.quantized import QuantizedWeight
from groundup.model.weight_map import EMBEDDING, HEAD, Weight
from groundup.tokenizer import Tokenizer


class GgufModel:
    """A language model in an open GGUF file.

    Attributes:
        config: model config.
        metadata: metadata of the file. The keys of the tokenizer begin with "tokenizer.".
        types: GGUF tensor name -> name of the tensor's type.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, and check that its tensors match its metadata. No weights are read.

        Args:
            path: path of the file.

        Raises:
            FormatError: the file is not a GGUF file, or is damaged or malicious; the architecture or its variant is
                unsupported; sizes are invalid; or a tensor is missing, unexpected, or has the wrong shape.
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
        """Name of the architecture in GGUF, such as "llama"."""
        return str(self.metadata[ARCHITECTURE])

    @property
    def name(self) -> str | None:
        """Name of the model that the file specifies; None if it does not specify a name."""
        name = self.metadata.get("general.name")
        return name if isinstance(name, str) else None

    @property
    def has_chat_template(self) -> bool:
        """Whether the file contains a chat template."""
        return "tokenizer.chat_template" in self.metadata

    def state(self, dtype: torch.dtype = torch.float32) -> Mapping[str, Tensor]:
        """Return a lazy state dict with groundup's parameter names. Each access reads the tensor from the file.

        Args:
            dtype: data type of the tensors.

        Returns:
            Mapping from parameter names to tensors.
        """
        return _State(self._file, self._holders, dtype)

    def as_stored(self) -> Transformer:
        """Return the model with the weights as the file stores them: memory-mapped, and quantized or of any dtype.

        Matrices of other quantized types are converted to int4 or int8 when they are used. Activations are fp32.
        """
        with torch.device("meta"):
            model = Transformer(self.config)
        for name, holder in self._holders.items():
            module_name, _, kind = name.rpartition(".")
            module = model.get_submodule(module_name)
            weight = self._stored_weight(name, holder)
            if isinstance(weight, QuantizedWeight):
                assert isinstance(module, Linear | Embedding)
                module.quantized = weight
                setattr(module, kind, None)
            else:
                setattr(module, kind, nn.Parameter(weight, requires_grad=False))
        if self.config.tie_embeddings:
            model.lm_head.weight = model.model.embed_tokens.weight
            model.lm_head.quantized = model.model.embed_tokens.quantized
        model.model.compute_dtype = torch.float32
        return model.eval()

    def conversion_note(self) -> str:
        """Return a sentence about the types that `as_stored` converts, or "" if it does not convert any."""
        counts: Counter[tuple[str, int]] = Counter()
        for info in self._file.tensors.values():
            if info.kind is not None and info.kind.name not in PLAIN_TYPES and not is_exact(info.kind):
                counts[info.kind.name, nearest_bits(info.kind)] += 1
        if not counts:
            return ""
        listed = ", ".join(f"{count} tensors {kind} to int{target}" for (kind, target), count in counts.most_common())
        return f"Converted {listed}. Tensors of the types Q8_0, Q4_0 and Q4_1 are used without conversion."

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the file.

        Raises:
            FormatError: the vocabulary is missing, damaged or unsupported.
        """
        return tokenizer_from_gguf(self.metadata).to_tokenizer()

    def _stored_weight(self, name: str, holder: Weight) -> Tensor | QuantizedWeight:
        info = self._file.tensors[holder.file_name]
        assert info.kind is not None
        own = name if name in holder.names else EMBEDDING
        if len(info.shape) == 1 or info.kind.name in PLAIN_TYPES:
            dtype = torch.float32 if len(info.shape) == 1 else PLAIN_TYPES[info.kind.name]
            return holder.read(self._file.read(holder.file_name, dtype))[own]
        return stored_matrix(self._file.stored(holder.file_name), info.kind, holder, own)


def open_gguf(path: Path) -> GgufModel:
    """Return the model in a GGUF file; see `GgufModel`. The last opened file is not read again."""
    found = path.stat() if path.is_file() else None
    return _opened(path, None if found is None else (found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=1)
def _opened(path: Path, _: tuple[int, int] | None) -> GgufModel:
    return GgufModel(path)


class _State(Mapping[str, Tensor]):
    def __init__(self, file: GgufFile, holders: Mapping[str, Weight], dtype: torch.dtype) -> None:
        self._file, self._holders, self._dtype = file, holders, dtype
        # Tensors that are still in use are returned again, so that a tied output head is not a copy of the embedding.
        self._in_use: WeakValueDictionary[str, Tensor] = WeakValueDictionary()

    def __getitem__(self, name: str) -> Tensor:
        holder = self._holders[name]
        name = name if name in holder.names else EMBEDDING
        tensor = self._in_use.get(name)
        if tensor is None:
            # The file stores norm weights in fp32. Operations on them are computed in fp32 before the conversion.
            exact = len(self._file.tensors[holder.file_name].shape) == 1
            stored = self._file.read(holder.file_name, torch.float32 if exact else self._dtype)
            self._in_use[name] = tensor = holder.read(stored)[name].to(self._dtype)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)


def _holders(path: Path, config: ModelConfig, found: Mapping[str, tuple[int, ...]]) -> dict[str, Weight]:
    """Return groundup's parameter name -> table entry of the GGUF tensor that contains the parameter.

    For a tied output head, this is the tensor of the embedding.
    """
    table: list[Weight] = []
    for weight in gguf_weight_table(config):
        if weight.file_name not in found:
            raise FormatError(
                f"{path}: no tensor {weight.file_name!r}",
                rule=f"required for a {config.family} model with {config.n_layers} layers",
                fix="The file is incomplete, or its variant is unsupported. Get it again, or choose another model.",
            )
        table.append(weight)
    left = sorted(found.keys() - {weight.file_name for weight in table} - {ROPE_FACTORS})
    if left:
        raise FormatError(
            f"{path}: unexpected tensors {', '.join(repr(name) for name in left[:5])}" + (", ..." * (len(left) > 5)),
            rule=f"a {config.family} model of this size does not have them",
            fix="groundup does not support this variant of the model: choose another model.",
        )
    # Check the size of the attention output first, because a model allocates RoPE frequencies of this size.
    _check_shape(path, "blk.0.attn_output.weight", found, (config.dim, config.n_heads * config.head_dim))
    for name, shape in table_shapes(config, table).items():
        _check_shape(path, name, found, shape)
    holders = {name: weight for weight in table for name in weight.names}
    return holders | ({HEAD: holders[EMBEDDING]} if config.tie_embeddings else {})


def _check_shape(path: Path, name: str, found: Mapping[str, tuple[int, ...]], shape: tuple[int, ...]) -> None:
    if found[name] != shape:
        raise FormatError(
            f"{path}: tensor {name!r} has shape {found[name]}",
            rule=f"the metadata requires {shape}",
            fix="The file is damaged: download it again.",
        )
