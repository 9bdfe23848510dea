"""Memory for keys and values in blocks of a few tokens, shared by sequences that begin with the same tokens.

Full blocks stay after their sequence has ended, and are found again by all tokens up to their end. This needs a
forward pass whose results do not depend on what is computed together; see `groundup.kernels.native_decoder`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groundup.core.errors import ResourceError

_SLAB_BYTES = 2**24  # memory is allocated in pieces of about this size


class OutOfBlocksError(ResourceError):
    """All blocks are in use by running sequences."""


@dataclass(slots=True, eq=False)
class BlockTable:
    """The blocks of one sequence.

    Attributes:
        length: Number of tokens whose keys and values are stored.
        addresses: Memory address of each block, int64.
        shared: Whether other sequences can use the blocks.
    """

    length: int = 0
    shared: bool = True
    addresses: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)  # of the full blocks that can be found again


class BlockPool:
    """The blocks of one model.

    Args:
        block_tokens: Tokens of a block.
        block_bytes: Bytes of a block.
        max_bytes: Limit of all blocks.
    """

    def __init__(self, block_tokens: int, block_bytes: int, max_bytes: int) -> None:
        self.block_tokens = block_tokens
        self.block_bytes = block_bytes
        self.max_blocks = max(1, max_bytes // block_bytes)
        self._slabs: list[Tensor] = []
        self._addresses: list[int] = []  # by block
        self._users: list[int] = []  # number of tables that hold a block
        self._keys: list[bytes | None] = []  # of blocks that can be found
        self._found: dict[bytes, int] = {}  # key -> block
        self._unused: OrderedDict[int, None] = OrderedDict()  # without users, the least recently used one first

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated now."""
        return sum(slab.nbytes for slab in self._slabs)

    def open(self, ids: Sequence[int], *, shared: bool = True) -> BlockTable:
        """Return a table that holds the stored tokens with which `ids` begins; see `extend`.

        Args:
            ids: The first ids of the sequence.
            shared: Whether the sequence uses blocks of other sequences, and they use its blocks.
        """
        table = BlockTable(shared=shared)
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
            OutOfBlocksError: Other sequences use all blocks. The table keeps what it has.
        """
        while len(table.blocks) * self.block_tokens < length:
            self._take(table, self._free_block())

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
            if self._keys[block] is None and key not in self._found:
                self._keys[block] = key
                self._found[key] = block

    def close(self, table: BlockTable) -> None:
        """Release the blocks of a table; the last ones are dropped first when memory is needed."""
        for block in reversed(table.blocks):
            self._users[block] -= 1
            if not self._users[block]:
                self._unused[block] = None
                if self._keys[block] is None:
                    self._unused.move_to_end(block, last=False)
        table.blocks.clear()
        table.keys.clear()
        table.length = 0

    def _key(self, table: BlockTable, ids: Sequence[int]) -> bytes:
        before = table.keys[-1] if table.keys else b""
        return hashlib.blake2b(before + torch.tensor(ids).numpy().tobytes(), digest_size=16).digest()

    def _take(self, table: BlockTable, block: int) -> None:
        self._users[block] += 1
        self._unused.pop(block, None)
        number = len(table.blocks)
        table.blocks.append(block)
        if number >= len(table.addresses):
            grown = torch.empty(max(16, 2 * number), dtype=torch.int64)
            grown[:number] = table.addresses[:number]
            table.addresses = grown
        table.addresses[number] = self._addresses[block]

    def _free_block(self) -> int:
        first = next(iter(self._unused), None)
        if first is None or self._keys[first] is not None:  # rather more memory than dropping what can be found
            self._grow()
            first = next(iter(self._unused), None)
        if first is None:
            raise OutOfBlocksError(
                f"{len(self._addresses)} blocks of the KV cache are in use",
                fix="Run fewer requests at a time, or allow the cache more memory.",
            )
        key, self._keys[first] = self._keys[first], None
        if key is not None:
            del self._found[key]
        return first

    def _grow(self) -> None:
        count = min(max(1, _SLAB_BYTES // self.block_bytes), self.max_blocks - len(self._addresses))
        if not count:
            return
        try:
            slab = torch.empty(count * self.block_bytes, dtype=torch.uint8)
        except RuntimeError:  # torch's error if memory runs out
            self.max_blocks = len(self._addresses)
            return
        self._slabs.append(slab)
        for number in range(count):
            block = len(self._addresses)
            self._addresses.append(slab.data_ptr() + number * self.block_bytes)
            self._users.append(0)
            self._keys.append(None)
            self._unused[block] = None
            self._unused.move_to_end(block, last=False)
