"""Find the largest micro-batch that fits into memory, from passes with one and two rows before step 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from groundup.core.errors import ResourceError
from groundup.distributed.ranks import Ranks
from groundup.kernels.memory import Peak, free_bytes
from groundup.train.objectives import Objective

BatchT = TypeVar("BatchT")

# Fraction of the free memory that a micro-batch may use, because other buffers and fragmentation also need memory.
_USABLE_FRACTION = 0.9


def find_max_rows(
    model: nn.Module,
    objective: Objective[BatchT],
    batch_of: Callable[[int], BatchT],
    *,
    max_rows: int,
    device: str,
    state_bytes: int,
    ranks: Ranks,
    free: Callable[[str], int | None] = free_bytes,
) -> int:
    """Return the maximum number of rows of a micro-batch that fits into memory. The result is the same on every rank.

    The memory per row is the difference between the peak memory of a forward and backward pass with two rows and of a
    pass with one row. The uncompiled passes need more memory than compiled training, and do not change the weights.

    Args:
        model: Module on which training runs the forward pass.
        objective: Loss to minimize.
        batch_of: Returns a batch with the given number of rows.
        max_rows: Maximum number of rows, which is returned if the system does not report memory use.
        device: Device of the model.
        state_bytes: Size in bytes of the optimizer state, which is allocated in step 1, after this measurement.
        ranks: Ranks of the run.
        free: Returns the free memory of a device in bytes.

    Raises:
        ResourceError: A micro-batch with a single row does not fit into memory.
    """
    peak = Peak(device)
    peak.reset()
    before, available = peak.now, free(device)
    if available is None or peak.bytes < 0:
        return ranks.min(max_rows)
    tops = []
    for rows in (1, 1, 2):  # The result of the first pass is ignored, because the pass also loads libraries.
        if rows > max_rows:
            break
        peak.reset()
        try:
            batch = objective.prepare(batch_of(rows), model)
            loss, _ = objective(model, batch)
            (loss * 0).backward()
        except torch.OutOfMemoryError:
            break
        finally:
            for parameter in model.parameters():
                parameter.grad = None
        tops.append(peak.bytes)
    usable = before + _USABLE_FRACTION * (available / _ranks_sharing_memory(device, ranks)) - state_bytes
    if len(tops) < 2 or tops[1] > usable:
        raise ResourceError(
            f"a forward and backward pass of one row needs {max([0, *tops]) / 1e9:,.1f} GB, and the optimizer "
            f"{state_bytes / 1e9:,.1f} GB, but {(before + available) / 1e9:,.1f} GB are available",
            fix="Choose a smaller model, a shorter context_length, or parallel.activation_checkpointing = true.",
        )
    if len(tops) < 3:
        return ranks.min(1)
    row = max(tops[2] - tops[1], 1)
    return ranks.min(max(1, min(max_rows, 1 + int((usable - tops[1]) // row))))


def _ranks_sharing_memory(device: str, ranks: Ranks) -> int:
    """Return the number of ranks that share the same memory: all ranks on this host, or one rank per GPU."""
    return 1 if device == "cuda" else ranks.local_size
