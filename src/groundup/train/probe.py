"""How many rows of a micro-batch fit into the memory: found by real passes of one and two rows before step 1."""

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

_USABLE = 0.9  # of what is free: the rest is for what a step does besides, and for fragments


def fitting_rows(
    model: nn.Module,
    objective: Objective[BatchT],
    batch_of: Callable[[int], BatchT],
    *,
    most: int,
    device: str,
    state_bytes: int,
    ranks: Ranks,
    free: Callable[[str], int | None] = free_bytes,
) -> int:
    """The most rows that a pass may have, `most` at the utmost; the same on every rank, and `most` where nobody knows.

    A pass of one row says what every pass takes, a second row what each further one does. The rest is arithmetic, so
    that no pass comes near the limit. Run without compilation, which takes more memory than with it. Weights and random
    numbers stay as they are.

    Args:
        model: as it is called in training.
        batch_of: a batch of so many rows.
        state_bytes: what will be kept besides from step 1 on: the optimizer's state.

    Raises:
        ResourceError: not even one row fits.
    """
    peak = Peak(device)
    peak.reset()
    before, available = peak.now, free(device)
    if available is None or peak.bytes < 0:
        return ranks.min(most)
    tops = []
    for rows in (1, 1, 2):  # the first pass also loads libraries
        if rows > most:
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
    usable = before + _USABLE * (available / _neighbours(device, ranks)) - state_bytes
    fits = len(tops) > 1 and tops[1] <= usable
    if not fits:
        raise ResourceError(
            f"a pass of one row takes {max([0, *tops]) / 1e9:,.1f} GB, and the optimizer {state_bytes / 1e9:,.1f} GB",
            rule=f"training must fit into the memory here, {(before + available) / 1e9:,.1f} GB",
            fix="Choose a smaller model, a shorter context_length, or parallel.activation_checkpointing = true.",
        )
    if len(tops) < 3:
        return ranks.min(1)
    row = max(tops[2] - tops[1], 1)
    return ranks.min(max(1, min(most, 1 + int((usable - tops[1]) // row))))


def _neighbours(device: str, ranks: Ranks) -> int:
    """How many ranks share the memory."""
    return 1 if device == "cuda" else ranks.on_this_machine
