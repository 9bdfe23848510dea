"""Memory for keys and values in blocks of a few tokens, shared by sequences that begin with the same tokens.

Full blocks stay after their sequence has ended, and also after their model was unloaded. They are found again by the
model and all tokens up to their end. This needs a forward pass whose results do not depend on what is computed
together; see `groundup.kernels.native_decoder`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groundup.core.errors import ResourceError


class OutOfBlocksError(ResourceError):
    """The memory is in use by running sequences."""


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """The blocks of one model.

    Attributes:
        identity: Digest of everything that keys and values depend on: weights, config, weight format and adapter.
        block_bytes: Bytes of a block.
    """

    identity: bytes
    block_bytes: int


@dataclass(slots=True, eq=False)
class CacheBlock:
    """Keys and values of a few consecutive tokens.

    Attributes:
        memory: The keys and values.
        key: Digest of the model and all tokens up to the end of the block, None if the block cannot be found.
        users: Number of tables that hold the block.
    """

    memory: Tensor
    key: bytes | None = None
    users: int = 0


@dataclass(slots=True, eq=False)
class BlockTable:
    """The blocks of one sequence.

    Attributes:
        layout: The blocks of its model.
        shared: Whether other sequences can use the blocks.
        length: Number of tokens whose keys and values are stored.
        addresses: Memory address of each block, int64.
    """

    layout: BlockLayout
    shared: bool = True
    length: int = 0
    addresses: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    blocks: list[CacheBlock] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)  # of the full blocks that can be found again


class BlockPool:
    """The blocks of one or more models whose sequences run in one thread.

    If the memory is full, the blocks that were used least recently are dropped, whichever model they belong to.

    Args:
        block_tokens: Tokens of a block.
        max_bytes: Limit of all blocks.

    Attributes:
        nbytes: Bytes that are allocated now.
    """

    def __init__(self, block_tokens: int, max_bytes: int) -> None:
        self.block_tokens = block_tokens
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._unused_bytes = 0
        self._found: dict[bytes, CacheBlock] = {}
        self._unused: OrderedDict[CacheBlock, None] = OrderedDict()  # without users, the least recently used one first

    @property
    def usage(self) -> float:
        """Part of `max_bytes` that sequences use, from 0 to 1. Prefixes of ended sequences do not count."""
        return (self.nbytes - self._unused_bytes) / self.max_bytes

    def allow(self, nbytes: int) -> None:
        """Raise the limit to at least `nbytes`, such as one sequence of the full context length of a model."""
        self.max_bytes = max(self.max_bytes, nbytes)

    def open(self, layout: BlockLayout, ids: Sequence[int], *, shared: bool = True) -> BlockTable:
        """Return a table that holds the stored tokens with which `ids` begins; see `extend`.

        Args:
            layout: The blocks of the sequence's model.
            ids: The first ids of the sequence.
            shared: Whether the sequence uses blocks of other sequences, and they use its blocks.
        """
        table = BlockTable(layout, shared)
        self.extend(table, ids)
        return table

    def extend(self, table: BlockTable, ids: Sequence[int]) -> bytes | None:
        """Add the stored blocks of `ids` that follow the tokens of a table.

        The last id is never among them, because its outputs are needed.

        Args:
            table: The table. Its blocks are not changed if the last one is not full, or if it is not shared.
            ids: The first ids of the sequence.

        Returns:
            The key of the next block, which another sequence may be about to compute. None if it cannot be shared.
        """
        size = self.block_tokens
        while table.shared and table.length == len(table.blocks) * size and table.length + size < len(ids):
            key = self._key(table, ids[table.length : table.length + size])
            block = self._found.get(key)
            if block is None:
                return key
            self._take(table, block)
            table.keys.append(key)
            table.length += size
        return None

    def reserve(self, table: BlockTable, length: int) -> None:
        """Add blocks to a table until they hold `length` tokens.

        Raises:
            OutOfBlocksError: Other sequences use the memory. The table keeps what it has.
        """
        while len(table.blocks) * self.block_tokens < length:
            self._take(table, self._new_block(table.layout.block_bytes))

    def advance(self, table: BlockTable, ids: Sequence[int]) -> None:
        """Note that keys and values are stored up to the end of `ids`, all ids of the sequence.

        Full blocks can be found from now on. If another sequence has stored the same tokens before, its block is found.
        """
        table.length = len(ids)
        while table.shared and (len(table.keys) + 1) * self.block_tokens <= table.length:
            number = len(table.keys)
            key = self._key(table, ids[number * self.block_tokens : (number + 1) * self.block_tokens])
            table.keys.append(key)
            block = table.blocks[number]
            if block.key is None and key not in self._found:
                block.key = key
                self._found[key] = block

    def close(self, table: BlockTable) -> None:
        """Release the blocks of a table. Its last ones are dropped first when memory is needed."""
        for block in reversed(table.blocks):
            block.users -= 1
            if block.users:
                continue
            if block.key is None:
                self.nbytes -= block.memory.nbytes
            else:
                self._unused[block] = None
                self._unused_bytes += block.memory.nbytes
        table.blocks.clear()
        table.keys.clear()
        table.length = 0

    def _key(self, table: BlockTable, ids: Sequence[int]) -> bytes:
        before = table.keys[-1] if table.keys else table.layout.identity
        return hashlib.blake2b(before + array("q", ids).tobytes(), digest_size=16).digest()

    def _take(self, table: BlockTable, block: CacheBlock) -> None:
        if block in self._unused:
            del self._unused[block]
            self._unused_bytes -= block.memory.nbytes
        block.users += 1
        number = len(table.blocks)
        table.blocks.append(block)
        if number >= len(table.addresses):
            grown = torch.empty(max(16, 2 * number), dtype=torch.int64)
            grown[:number] = table.addresses[:number]
            table.addresses = grown
        table.addresses[number] = block.memory.data_ptr()

    def _new_block(self, size: int) -> CacheBlock:
        """Return a block that no table holds, in new memory or in the memory of dropped blocks."""
        if self.nbytes + size <= self.max_bytes:
            try:
                memory = torch.empty(size, dtype=torch.uint8)
            except RuntimeError:  # torch's error if memory runs out
                self.max_bytes = self.nbytes
            else:
                self.nbytes += size
                return CacheBlock(memory)
        if self.nbytes + size - self._unused_bytes > self.max_bytes:
            raise OutOfBlocksError(
                f"{self.nbytes - self._unused_bytes:,} bytes of the KV cache are in use",
                fix="Run fewer requests at a time, or allow the cache more memory.",
            )
        while self.nbytes + size > self.max_bytes:
            dropped, _ = self._unused.popitem(last=False)
            assert dropped.key is not None
            del self._found[dropped.key]
            self._unused_bytes -= dropped.memory.nbytes
            if dropped.memory.nbytes == size:
                return CacheBlock(dropped.memory)
            self.nbytes -= dropped.memory.nbytes
        return self._new_block(size)
