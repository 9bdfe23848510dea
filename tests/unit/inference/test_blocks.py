"""The pool of KV cache blocks: prefixes are found again, models do not mix, and memory is bounded."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
import torch

from groundup.inference.blocks import BlockLayout, BlockPool, BlockTable, OutOfBlocksError

TOKENS = 4
ONE, OTHER, LARGE = BlockLayout(b"one", 64), BlockLayout(b"other", 64), BlockLayout(b"large", 192)


def store(pool: BlockPool, ids: list[int], layout: BlockLayout = ONE) -> BlockTable:
    """Return a table after all ids were computed."""
    table = pool.open(layout, ids)
    pool.reserve(table, len(ids))
    pool.advance(table, ids)
    return table


def pool_of(blocks: int) -> BlockPool:
    return BlockPool(TOKENS, blocks * 64)


def test_full_blocks_of_a_prefix_are_found_again() -> None:
    pool = pool_of(16)
    first = store(pool, list(range(10)))
    assert first.length == 10
    again = pool.open(ONE, [*range(10), 99])
    assert again.length == 8  # two full blocks
    assert again.blocks == first.blocks[:2]
    assert again.addresses[:2].tolist() == first.addresses[:2].tolist()


def test_the_last_token_is_never_found() -> None:
    pool = pool_of(16)
    store(pool, list(range(8)))
    assert pool.open(ONE, list(range(8))).length == 4
    assert pool.open(ONE, list(range(9))).length == 8


def test_a_block_is_found_only_after_the_same_tokens() -> None:
    pool = pool_of(16)
    store(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert pool.open(ONE, [0, 2, 3, 4, 5, 6, 7, 8, 9]).length == 0
    assert pool.open(ONE, [1, 2, 3, 4, 5, 6, 7, 0, 9]).length == 4


def test_a_block_is_found_only_by_its_model() -> None:
    pool = pool_of(16)
    pool.close(store(pool, list(range(9))))
    assert pool.open(OTHER, list(range(9))).length == 0
    assert pool.open(ONE, list(range(9))).length == 8


def test_blocks_outlive_their_sequence_until_memory_is_needed() -> None:
    pool = pool_of(4)
    pool.close(store(pool, list(range(8))))
    again = pool.open(ONE, list(range(9)))
    assert again.length == 8
    pool.close(again)
    new = store(pool, list(range(100, 116)), OTHER)
    assert len(new.blocks) == 4
    assert pool.open(ONE, list(range(9))).length == 0


def test_the_end_of_a_prefix_is_dropped_first() -> None:
    pool = pool_of(3)
    pool.close(store(pool, list(range(12))))
    store(pool, [50, 51])
    assert pool.open(ONE, [*range(12), 99]).length == 8


def test_blocks_in_use_are_not_dropped() -> None:
    pool = pool_of(3)
    first = store(pool, list(range(8)))
    second = pool.open(ONE, [50])
    pool.reserve(second, 4)
    with pytest.raises(OutOfBlocksError, match="192 bytes"):
        pool.reserve(second, 8)
    assert len(second.blocks) == 1
    pool.close(first)
    pool.reserve(second, 12)
    assert len({id(block) for block in second.blocks}) == 3
    assert pool.nbytes == 3 * 64


def test_a_sequence_that_is_not_shared_is_not_found() -> None:
    pool = pool_of(16)
    table = pool.open(ONE, list(range(9)), shared=False)
    pool.reserve(table, 9)
    pool.advance(table, list(range(9)))
    assert pool.extend(table, list(range(20))) is None
    assert pool.open(ONE, list(range(9))).length == 0
    pool.close(table)
    assert pool.nbytes == 0


def test_blocks_that_another_sequence_stored_in_the_meantime_are_added() -> None:
    pool = pool_of(16)
    table = pool.open(ONE, list(range(12)))
    key = pool.extend(table, list(range(12)))
    assert key == pool.extend(pool.open(ONE, [0, 1, 2, 3, 50]), [0, 1, 2, 3, 50])
    store(pool, list(range(9)))
    assert pool.extend(table, list(range(13))) not in (key, None)
    assert table.length == 8


def test_addresses_do_not_overlap() -> None:
    pool = pool_of(100)
    table = pool.open(ONE, [1])
    pool.reserve(table, 400)
    addresses = sorted(table.addresses[:100].tolist())
    assert all(later - earlier >= 64 for earlier, later in pairwise(addresses))


def test_random_schedules_never_mix_models_and_stay_within_the_limit() -> None:
    """Each block is filled with a digest of its model and tokens, which every later reader checks."""
    random = Random(0)
    limit = 40 * 64
    pool = BlockPool(TOKENS, limit)
    layouts = [ONE, OTHER, LARGE]
    tables: list[tuple[BlockTable, list[int]]] = []
    found = refused = 0

    def content(layout: BlockLayout, ids: list[int]) -> int:
        return hash((layout.identity, tuple(ids))) % 251

    for _ in range(4000):
        if tables and random.random() < 0.45:
            table, _ = tables.pop(random.randrange(len(tables)))
            pool.close(table)
            continue
        layout = random.choice(layouts)
        ids = [random.randrange(2) for _ in range(random.randrange(1, 40))]
        table = pool.open(layout, ids)
        found += table.length
        tables.append((table, ids))
        begin = table.length // TOKENS
        try:
            pool.reserve(table, len(ids))
        except OutOfBlocksError:
            refused += 1
            tables.pop()
            pool.close(table)
            continue
        for number in range(begin, len(table.blocks)):
            table.blocks[number].memory.fill_(content(layout, ids[: (number + 1) * TOKENS]))
        pool.advance(table, ids)
        assert pool.nbytes <= limit
        for each, known in tables:
            for number, block in enumerate(each.blocks):
                assert block.memory.nbytes == each.layout.block_bytes
                assert block.memory.data_ptr() == each.addresses[number]
                expected = content(each.layout, known[: (number + 1) * TOKENS])
                assert torch.equal(block.memory, torch.full_like(block.memory, expected))
    for table, _ in tables:
        pool.close(table)
    assert found > 500 and refused > 100  # both cases were reached
    assert pool.nbytes == sum(block.memory.nbytes for block in pool._found.values()) <= limit
