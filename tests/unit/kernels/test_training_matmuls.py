"""The matmuls of linear layers and MLPs with AVX-512 and with AMX tiles, compared with PyTorch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.kernels.kernel_choice import Kernel, MatmulGroup, Operation
from groundup.kernels.kernel_timing import _operands
from groundup.kernels.matmuls import IMPLEMENTATIONS
from groundup.kernels.native_library import native_library

LIBRARY = native_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ kernels on this machine")

# 3 steps of k per 32 rows of a block: several rows must be written per step. 1088 steps of k: one row per step, and a
# core's cache holds only 96 rows of the left operand.
SIZES = [(96, (64,)), (96, (64, 64)), (1088, (32, 32))]
OPERATIONS: tuple[Operation, ...] = (
    "linear",
    "feed_forward",
    "feed_forward_gradients",
    "input_gradients",
    "weight_gradients",
)


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tensors(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else [tensor for part in found for tensor in tensors(part)]


def computed(library: ctypes.CDLL | None, kernel: Kernel, group: MatmulGroup, rows: int, gelu: bool) -> list[Tensor]:
    """Return the results of a group, and the gradients with which it overwrites its operands."""
    operands = _operands(group, rows, gelu)
    found = tensors(IMPLEMENTATIONS[group.operation][kernel](library, *operands))
    return found + (tensors(operands[1]) if group.operation == "feed_forward_gradients" else [])


@pytest.mark.parametrize("kernels", ["this CPU", "emulated_amx", "without_vnni", "avx2"])
@pytest.mark.parametrize("rows", [1, 77, 320])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_matmuls(operation: Operation, rows: int, kernels: str, request: pytest.FixtureRequest) -> None:
    """A block is written while the tiles compute the next one: no row may be lost at the end of a thread."""
    library = LIBRARY if kernels == "this CPU" else request.getfixturevalue(kernels)
    for inputs, outputs in SIZES:
        group = MatmulGroup(operation, inputs, outputs)
        if not group.is_native:
            continue
        for threads, gelu in ((1, False), (2, True)):
            torch.set_num_threads(threads)
            ours = computed(library, "native", group, rows, gelu)
            usual = computed(LIBRARY, "torch", group, rows, gelu)
            assert len(ours) == len(usual)
            for mine, theirs in zip(ours, usual, strict=True):
                assert (mine.float() - theirs.float()).norm() <= 5e-3 * theirs.float().norm()
                # The norm would hide a single lost row.
                assert (mine.float() - theirs.float()).abs().max() <= 0.02 * theirs.float().abs().max()
