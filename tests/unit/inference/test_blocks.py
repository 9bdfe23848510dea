"""The pool of KV cache blocks: prefixes are found again, and memory is bounded."""

from __future__ import annotations

from itertools import pairwise

import pytest

from groundup.inference.blocks import BlockPool, BlockTable, OutOfBlocksError

TOKENS = 4


def store(pool: BlockPool, ids: list[int]) -> BlockTable:
    """Return a table after all ids were computed."""
    table = pool.open(ids)
    pool.reserve(table, len(ids))
    pool.advance(table, ids)
    return table


def pool_of(blocks: int) -> BlockPool:
    return BlockPool(TOKENS, 64, blocks * 64)


def test_full_blocks_of_a_prefix_are_found_again() -> None:
    pool = pool_of(16)
    first = store(pool, list(range(10)))
    assert first.length == 10
    again = pool.open([*range(10), 99])
    assert again.length == 8  # two full blocks
    assert again.blocks == first.blocks[:2]
    assert again.addresses[:2].tolist() == first.addresses[:2].tolist()


def test_the_last_token_is_never_found() -> None:
    pool = pool_of(16)
    store(pool, list(range(8)))
    assert pool.open(list(range(8))).length == 4
    assert pool.open(list(range(9))).length == 8


def test_a_block_is_found_only_after_the_same_tokens() -> None:
    pool = pool_of(16)
    store(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert pool.open([0, 2, 3, 4, 5, 6, 7, 8, 9]).length == 0
    assert pool.open([1, 2, 3, 4, 5, 6, 7, 0, 9]).length == 4


def test_blocks_outlive_their_sequence_until_memory_is_needed() -> None:
    pool = pool_of(4)
    old = store(pool, list(range(8)))
    pool.close(old)
    again = pool.open(list(range(9)))
    assert again.length == 8
    pool.close(again)
    new = store(pool, list(range(100, 116)))
    assert len(new.blocks) == 4
    assert pool.open(list(range(9))).length == 0


def test_the_end_of_a_prefix_is_dropped_first() -> None:
    pool = pool_of(3)
    pool.close(store(pool, list(range(12))))
    store(pool, [50, 51])
    assert pool.open([*range(12), 99]).length == 8


def test_blocks_in_use_are_not_dropped() -> None:
    pool = pool_of(3)
    first = store(pool, list(range(8)))
    second = pool.open([50])
    pool.reserve(second, 4)
    with pytest.raises(OutOfBlocksError, match="3 blocks"):
        pool.reserve(second, 8)
    assert len(second.blocks) == 1
    pool.close(first)
    pool.reserve(second, 12)
    assert len(set(second.blocks)) == 3
    assert pool.nbytes == 3 * 64


def test_addresses_do_not_overlap() -> None:
    pool = pool_of(100)
    table = pool.open([1])
    pool.reserve(table, 400)
    addresses = sorted(table.addresses[:100].tolist())
    assert all(later - earlier >= 64 for earlier, later in pairwise(addresses))
