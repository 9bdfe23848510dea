"""Cross-entropy of a linear layer's logits that never holds all logits.

A 32k vocabulary at 16 x 512 tokens makes 1 GB of fp32 logits, and as much again for their gradient. Here rows go
through in chunks; for a loss that is summed, a chunk's gradient is made while its logits are at hand.

Shape letters: R rows (tokens), D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.types import IGNORE_INDEX

CHUNK_ROWS = 1024  # at an 8k vocabulary 32 MB of fp32 logits, about an L3 cache; larger chunks gave nothing

Residual = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def nll_and_residual(logits_RV: Tensor, labels_R: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's negative log-likelihood, (R,) fp32, and its gradient by the logits: softmax - onehot.

    Rows labelled IGNORE_INDEX give 0 and a zero gradient. Pure elementwise and row reductions: made to be compiled.
    """
    logits = logits_RV.float()
    kept_R = labels_R != IGNORE_INDEX
    targets_R1 = labels_R.clamp(min=0).unsqueeze(1)
    lse_R1 = logits.logsumexp(1, keepdim=True)
    nll_R = (lse_R1 - logits.gather(1, targets_R1)).squeeze(1) * kept_R
    classes_V = torch.arange(logits.shape[1], device=logits.device)
    residual_RV = ((logits - lse_R1).exp() - (classes_V == targets_R1).float()) * kept_R.unsqueeze(1)
    return nll_R, residual_RV.to(logits_RV.dtype)


def summed_nll(h_RD: Tensor, weight_VD: Tensor, labels_R: Tensor, residual: Residual = nll_and_residual) -> Tensor:
    """Sum over rows of the labels' negative log-likelihood under softmax(h W^T), () fp32.

    Args:
        residual: `nll_and_residual`, or a compiled version of it.
    """
    total: Tensor = _SummedNLL.apply(h_RD, weight_VD, labels_R, residual)
    return total


@torch.no_grad()
def row_nll(h_RD: Tensor, weight_VD: Tensor, labels_R: Tensor) -> Tensor:
    """Each row's negative log-likelihood, (R,) fp32, without gradients: for evaluation."""
    weight = weight_VD.to(h_RD.dtype)
    return torch.cat(
        [
            F.cross_entropy(F.linear(h, weight).float(), labels, ignore_index=IGNORE_INDEX, reduction="none")
            for h, labels in _chunks(h_RD, labels_R)
        ]
    )


def _chunks(h_RD: Tensor, labels_R: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(h_RD.split(CHUNK_ROWS), labels_R.split(CHUNK_ROWS), strict=True)


class _SummedNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_RD: Tensor, weight_VD: Tensor, labels_R: Tensor, residual: Residual) -> Tensor:
        weight = weight_VD.to(h_RD.dtype)
        total = torch.zeros((), dtype=torch.float32, device=h_RD.device)
        grad_h = torch.empty_like(h_RD)
        grad_weight = torch.zeros_like(weight_VD)
        for (h, labels), grad in zip(_chunks(h_RD, labels_R), grad_h.split(CHUNK_ROWS), strict=True):
            nll_R, residual_RV = residual(F.linear(h, weight), labels)
            total += nll_R.sum()
            torch.mm(residual_RV, weight, out=grad)
            grad_weight += residual_RV.t() @ h
        ctx.save_for_backward(grad_h, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_h, grad_weight = ctx.saved_tensors
        return grad_h * upstream[0], grad_weight * upstream[0], None, None
