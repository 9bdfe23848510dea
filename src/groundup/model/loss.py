"""Cross-entropy of a linear layer's logits that never holds all logits.

A 32k vocabulary at 16 x 512 tokens makes 1 GB of fp32 logits, and as much again for their gradient. Here rows go
through in chunks; for a loss that is summed, a chunk's gradient is made while its logits are at hand.

Shape letters: R rows (tokens), D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.types import IGNORE_INDEX
from groundup.model.operations import CHUNK_ROWS, PLAIN, Operations

# Logits at a time above a frozen matrix: no gradient of it is read and written once a chunk, so that they may be small.
FROZEN_LOGITS = 4_000_000


def summed_nll(
    h_RD: Tensor,
    weight_VD: Tensor,
    labels_R: Tensor,
    operations: Operations = PLAIN,
    *,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Sum over rows of the labels' negative log-likelihood under softmax(h W^T), () fp32.

    Args:
        z_loss: the gradient is that of the sum with z_loss * (log of softmax's denominator)^2 of each row added (PaLM,
            arXiv:2204.02311), which keeps logits from drifting; the value is the sum alone.
        softcap: see `softcapped`.
    """
    total: Tensor = _SummedNLL.apply(h_RD, weight_VD, labels_R, operations, z_loss, softcap)
    return total


def softcapped(logits_RV: Tensor, softcap: float | None) -> Tensor:
    """Return softcap x tanh(logits / softcap) (Gemma 2, arXiv:2408.00118); None: the logits as they are."""
    return logits_RV if softcap is None else softcap * torch.tanh(logits_RV / softcap)


@torch.no_grad()
def row_nll(h_RD: Tensor, weight_VD: Tensor, labels_R: Tensor, *, softcap: float | None = None) -> Tensor:
    """Each row's negative log-likelihood, (R,) fp32, without gradients: for evaluation."""
    weight = weight_VD.to(h_RD.dtype)

    def nll(h: Tensor, labels: Tensor) -> Tensor:
        logits = softcapped(F.linear(h, weight), softcap).float()
        return F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")

    return torch.cat([nll(h, labels) for h, labels in _chunks(h_RD, labels_R, CHUNK_ROWS)])


def _chunks(h_RD: Tensor, labels_R: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(h_RD.split(rows), labels_R.split(rows), strict=True)


class _SummedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h_RD: Tensor,
        weight_VD: Tensor,
        labels_R: Tensor,
        operations: Operations,
        z_loss: float,
        softcap: float | None,
    ) -> Tensor:
        weight = weight_VD.to(h_RD.dtype)
        total = torch.zeros((), dtype=torch.float32, device=h_RD.device)
        grad_h = torch.empty_like(h_RD)
        grad_weight = torch.empty_like(weight_VD) if ctx.needs_input_grad[1] else None  # none of a frozen one
        rows = operations.chunk_rows(len(weight))
        if grad_weight is None:
            rows = max(1, min(rows, FROZEN_LOGITS // len(weight)))
        done = 0
        for h, labels in _chunks(h_RD, labels_R, rows):
            logits_RV = softcapped(F.linear(h, weight), softcap)
            slope_RV = None if softcap is None else 1 - (logits_RV / softcap).square()  # of the softcap
            nll_R, residual_RV = operations.nll_and_residual(logits_RV, labels, z_loss)
            total += nll_R.sum()
            if slope_RV is not None:
                residual_RV = residual_RV * slope_RV
            torch.mm(residual_RV, weight, out=grad_h[done : done + len(h)])
            if grad_weight is not None:
                operations.transposed_product(grad_weight, residual_RV, h, add=done > 0)
            done += len(h)
        # Not through `save_for_backward`: they are nobody else's, and are scaled in place.
        ctx.gradients = grad_h, grad_weight
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        grad_h, grad_weight = ctx.gradients
        del ctx.gradients
        grad_weight = None if grad_weight is None else grad_weight.mul_(upstream[0])
        return grad_h.mul_(upstream[0]), grad_weight, None, None, None, None
