"""Time the kernels for the matmuls of a model, and choose the fastest kernel for each of them."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.kernels.heap import keep_large_buffers
from groundup.kernels.kernel_choice import ChosenKernel, Kernel, KernelChoice, MatmulGroup, matmul_groups
from groundup.kernels.matmuls import IMPLEMENTATIONS
from groundup.model import ModelConfig
from groundup.model.families import FAMILIES

_SECONDS = 1.2  # time for all groups
_MIN_ROUNDS = 3
_RUNS = _MIN_ROUNDS + 2  # with the first run, and with the time for creating operands
_MAX_ROUNDS = 20
_FLOPS_SIZE, _FLOPS_RUNS = 1024, 4
_MIN_ROWS, _MAX_ROWS = 128, 8192  # tokens; the planner's micro-batches have at most 8192 tokens
# PyTorch must be this much faster than the C++ kernel, because a difference of a few percent is noise.
_MIN_SPEEDUP = 1.05


@torch.no_grad()
def choose_kernels(config: ModelConfig, library: ctypes.CDLL, flops: float) -> KernelChoice:
    """Time the kernels of each group of matmuls, and return the fastest ones. It takes one to two seconds.

    The runs of a group alternate between its kernels, so that other load on the machine affects all of them. The
    shortest time of each kernel is compared.

    Args:
        config: Architecture of a model whose weights are all trained.
        library: The library of C++ kernels.
        flops: Matmul throughput of this machine in FLOP/s, from which the number of rows is derived.
    """
    keep_large_buffers()
    groups = matmul_groups(config)
    gelu = FAMILIES[config.family].activation == "gelu_tanh"
    return KernelChoice(choices=tuple(_choose(group, gelu, library, flops, _SECONDS / len(groups)) for group in groups))


@torch.no_grad()
def native_flops(library: ctypes.CDLL) -> float:
    """Return the throughput of the C++ kernel for a bf16 linear layer of medium size in FLOP/s."""
    size = _FLOPS_SIZE
    operands = _operands(MatmulGroup("linear", size, (size,)), size, False)
    seconds = []
    for _ in range(_FLOPS_RUNS):
        started = time.perf_counter()
        IMPLEMENTATIONS["linear"]["native"](library, *operands)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def _choose(group: MatmulGroup, gelu: bool, library: ctypes.CDLL, flops: float, seconds: float) -> ChosenKernel:
    kernels = IMPLEMENTATIONS[group.operation]
    flops_per_row = 2 * group.inputs * sum(group.outputs)
    rows = int(seconds / (_RUNS * len(kernels)) * flops / flops_per_row)
    rows = max(_MIN_ROWS, min(_MAX_ROWS, rows // _MIN_ROWS * _MIN_ROWS))
    deadline = time.perf_counter() + seconds
    for kernel in kernels.values():  # The first call is slow, because it creates buffers and kernels.
        kernel(library, *_operands(group, rows, gelu))
    times: dict[Kernel, list[float]] = {name: [] for name in kernels}
    for done in range(_MAX_ROUNDS):
        if done >= _MIN_ROUNDS and time.perf_counter() > deadline:
            break
        for name, kernel in kernels.items():
            operands = _operands(group, rows, gelu)
            started = time.perf_counter()
            kernel(library, *operands)
            times[name].append(time.perf_counter() - started)
    shortest = {name: min(found) for name, found in times.items()}
    best: Kernel = "torch" if _MIN_SPEEDUP * shortest["torch"] < shortest["native"] else "native"
    return ChosenKernel(group, best, {name: round(1000 * found, 4) for name, found in shortest.items()})


def _operands(group: MatmulGroup, rows: int, gelu: bool) -> Sequence[Any]:
    """Return operands for the implementations of a group. "feed_forward_gradients" overwrites its operands."""
    inputs, outputs = group.inputs, group.outputs
    x_RD = _values(rows, inputs)
    weights = [_values(size, inputs) / inputs**0.5 for size in outputs]
    if group.operation == "linear":
        return x_RD, weights, [None] * len(weights)
    hidden = [_values(rows, size) for size in outputs]
    if group.operation == "feed_forward":
        return gelu, x_RD, weights, [None] * len(weights)
    if group.operation == "feed_forward_gradients":
        return gelu, hidden, x_RD, weights[0].t().contiguous()
    return hidden, weights if group.operation == "input_gradients" else x_RD


def _values(rows: int, columns: int) -> Tensor:
    """Return a bf16 matrix of repeated random values, because that many random values would take too long."""
    values = torch.randn(4093, generator=torch.Generator().manual_seed(0)).bfloat16()
    return values.repeat(rows * columns // len(values) + 1)[: rows * columns].view(rows, columns)
