"""A GGUF file, mapped into memory: its metadata, and its tensors in floating point, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from gguf.quants import dequantize
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.gguf.header import MetaValue, TensorInfo, parse_header
from groundup.hub.gguf.types import PLAIN_TYPES, READABLE

# Values turned at a time: in a core's cache, and so few that torch copies them without waking its other threads (twice
# as many took ten times the processor time on a busy machine).
_CHUNK = 2**15


class GgufFile:
    """A GGUF file, opened for reading.

    Attributes:
        metadata: what the file says of itself, in its order.
        tensors: by name, in the file's order.
    """

    def __init__(self, path: Path) -> None:
        """Map the file and read its header.

        Raises:
            FormatError: no GGUF file, a damaged or hostile one, or one part of several.
        """
        if not path.is_file() or not path.stat().st_size:
            raise FormatError(
                f"{path}: " + ("an empty file" if path.is_file() else "no such file"),
                rule="a GGUF file is needed",
                fix="Check the path.",
            )
        self.path = path
        # Private and writable to torch's eyes: what would write into a tensor gets pages of its own, not the file's.
        self._bytes = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        header = parse_header(memoryview(self._bytes.numpy()), str(path))  # type: ignore[arg-type]
        self.metadata: Mapping[str, MetaValue] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = header.tensors
        self._check_whole()
        self._check_readable()

    def read(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """The tensor of this name, in this dtype: of its own dtype a view into the file, else a tensor of its own."""
        info = self.tensors[name]
        assert info.kind is not None
        stored = self._bytes[info.start : info.start + info.n_bytes]
        if info.kind.name in PLAIN_TYPES:
            return stored.view(PLAIN_TYPES[info.kind.name]).view(info.shape).to(dtype)
        read = torch.empty(info.shape, dtype=dtype)
        values, blocks = read.view(-1), stored.view(-1, info.kind.block_bytes)
        step = _CHUNK // info.kind.block
        for first in range(0, len(blocks), step):
            chunk = blocks[first : first + step].reshape(1, -1).numpy()  # as one row: see quantize.py
            turned = torch.from_numpy(dequantize(chunk, info.kind.library_type)).view(-1)
            values[first * info.kind.block :][: len(turned)] = turned
        return read

    def _check_whole(self) -> None:
        parts = self.metadata.get("split.count", 1)
        if isinstance(parts, int) and parts > 1:
            raise FormatError(
                f"{self.path}: one part of {parts}",
                rule="a model in one file is read",
                fix="Join the parts first: llama-gguf-split --merge FIRST-PART OUT.gguf (it comes with llama.cpp).",
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
            f"{self.path}: {len(unread):,} tensors of a type that is not read: {named}" + (", ..." * (len(unread) > 5)),
            rule=f"the types that are read are {known}",
            fix="Get the model in one of them, e.g. Q8_0, or turn it with llama-quantize --allow-requantize.",
        )
