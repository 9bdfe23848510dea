"""Muon's orthogonalization by teams of threads, and with AMX tiles."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from groundup.kernels.native_library import native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.optim import newton_schulz

LIBRARY = native_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ kernels on this machine")

# Square, wide and tall. 288 rows and 544 columns fill more than one tile of a result and one pass over k.
SHAPES = [(64, 64), (96, 544), (544, 288)]


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def matrices(shape: tuple[int, int], count: int) -> list[Tensor]:
    return list(torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)))


def orthogonalized(library: ctypes.CDLL | None, shape: tuple[int, int], count: int, threads: int) -> list[Tensor]:
    assert library is not None
    torch.set_num_threads(threads)
    return list(NativeOperations(library).orthogonalize(matrices(shape, count)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("count", "threads"), [(1, 3), (3, 2)])
def test_the_result_does_not_depend_on_threads(shape: tuple[int, int], count: int, threads: int) -> None:
    """A thread of a team that starts a product before the others have packed its operand reads old values."""
    alone = orthogonalized(LIBRARY, shape, count, 1)
    assert all(map(torch.equal, orthogonalized(LIBRARY, shape, count, threads), alone))


@pytest.mark.parametrize("shape", SHAPES)
def test_amx_tiles(shape: tuple[int, int], emulated_amx: ctypes.CDLL) -> None:
    for ours, usual in zip(orthogonalized(emulated_amx, shape, 1, 1), newton_schulz(matrices(shape, 1)), strict=True):
        # Both are in bf16, and the quintic iteration amplifies rounding errors.
        assert (ours - usual.float()).norm() / usual.float().norm() < 0.03
