"""Memory-mapped reading of GGUF files: metadata, and dequantization of single tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from gguf.quants import dequantize
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.gguf.header import MetaValue, TensorInfo, parse_header
from groundup.hub.gguf.types import PLAIN_TYPES, READABLE

# Number of values that are dequantized together. A chunk of this size fits into the cache of a core, and torch copies
# it in a single thread. With chunks of twice this size, dequantization took ten times the CPU time on a busy machine.
_CHUNK = 2**15


class GgufFile:
    """An open GGUF file.

    Attributes:
        path: path of the file.
        metadata: metadata key -> value, in the order of the file.
        tensors: tensor name -> location of the tensor, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Memory-map the file and read its header.

        Args:
            path: path of the file.

        Raises:
            FormatError: the file is not a GGUF file, is damaged or malicious, or is only one part of a split file.
        """
        if not path.is_file() or not path.stat().st_size:
            raise FormatError(
                f"{path}: " + ("an empty file" if path.is_file() else "no such file"),
                rule="must be a GGUF file",
                fix="Check the path.",
            )
        self.path = path
        # The mapping is private, so that writes to a tensor do not change the file.
        self._bytes = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        header = parse_header(memoryview(self._bytes.numpy()), str(path))  # type: ignore[arg-type]
        self.metadata: Mapping[str, MetaValue] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = header.tensors
        self._check_not_split()
        self._check_readable()

    def read(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a tensor. The result is a view of the file if the file stores the requested dtype, otherwise a copy.

        Args:
            name: GGUF name of the tensor.
            dtype: data type of the returned tensor.

        Returns:
            The tensor.
        """
        info = self.tensors[name]
        assert info.kind is not None
        stored = self._bytes[info.start : info.start + info.n_bytes]
        if info.kind.name in PLAIN_TYPES:
            return stored.view(PLAIN_TYPES[info.kind.name]).view(info.shape).to(dtype)
        read = torch.empty(info.shape, dtype=dtype)
        values, blocks = read.view(-1), stored.view(-1, info.kind.block_bytes)
        step = _CHUNK // info.kind.block
        for first in range(0, len(blocks), step):
            chunk = blocks[first : first + step].reshape(1, -1).numpy()  # One row, as in quantize.py.
            turned = torch.from_numpy(dequantize(chunk, info.kind.library_type)).view(-1)
            values[first * info.kind.block :][: len(turned)] = turned
        return read

    def stored(self, name: str) -> Tensor:
        """Return the bytes of a tensor as a view of the file, of shape (number of rows, bytes per row)."""
        info = self.tensors[name]
        assert info.kind is not None
        return self._bytes[info.start : info.start + info.n_bytes].view(-1, info.kind.row_bytes(info.shape[-1]))

    def _check_not_split(self) -> None:
        parts = self.metadata.get("split.count", 1)
        if isinstance(parts, int) and parts > 1:
            raise FormatError(
                f"{self.path}: one of {parts} parts of a split file",
                fix="Merge the parts first, with llama.cpp: llama-gguf-split --merge FIRST-PART OUT.gguf.",
            )

    def _check_readable(self) -> None:
        unread = [tensor for tensor in self.tensors.values() if tensor.kind not in READABLE]
        if not unread:
            return
        named = ", ".join(
            f"{tensor.name!r} ({tensor.kind.name if tensor.kind else f'type {tensor.number}'})" for tensor in unread[:5]
        )
        known = ", ".join(kind.name for kind in READABLE)
        raise FormatError(
            f"{self.path}: {len(unread):,} tensors have unsupported types: {named}" + (", ..." * (len(unread) > 5)),
            rule=f"supported types are {known}",
            fix="Get the model in a supported type such as Q8_0, or convert it with llama-quantize --allow-requantize.",
        )
