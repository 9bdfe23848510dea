"""Memory-efficient cross-entropy loss, which computes the logits in chunks and stores only one chunk at a time.

For a vocabulary of 32,000 tokens and a batch of 16 x 512 tokens, the logits in fp32 take 1 GB, and their gradient takes
another 1 GB. If the loss is summed, the gradient of each chunk is already computed in the forward pass, while the
logits of the chunk are in memory.

Letters in tensor names: R is the number of rows (tokens), D the hidden size, and V the vocabulary size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.types import IGNORE_INDEX
from groundup.model.operations import CHUNK_ROWS, DEFAULT_OPERATIONS, Operations

# Maximum number of logits per chunk if the output head is frozen. If the head is trained, larger chunks are faster,
# because each chunk reads and writes the whole gradient of the head.
MAX_FROZEN_LOGITS = 4_000_000


class TeacherStates(NamedTuple):
    """Hidden states of a teacher, from which the loss computes the teacher's logits in chunks.

    Attributes:
        h_RD: Hidden states. The hidden size may differ from that of the student.
        weight_VD: Weight of the teacher's output head.
        operations: The teacher's operations.
        softcap: Softcap of the teacher's logits; see `softcapped`.
    """

    h_RD: Tensor
    weight_VD: Tensor
    operations: Operations = DEFAULT_OPERATIONS
    softcap: float | None = None

    def logits(self, start: int, stop: int) -> Tensor:
        """Return the logits of some rows, of shape (stop - start, V)."""
        h_RD = self.h_RD[start:stop]
        weight_VD = self.operations.rounded(self.weight_VD, h_RD.dtype)
        return softcapped(self.operations.logits(h_RD, weight_VD), self.softcap)


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Mean probabilities of one or several teachers, as labels (Hinton et al. 2015, arXiv:1503.02531).

    Attributes:
        teachers: Hidden states of each teacher, for the tokens of the loss.
        weight: Weight of the teachers. The labels have the weight 1 - `weight`.
    """

    teachers: Sequence[TeacherStates]
    weight: float

    def of_rows(self, rows_R: Tensor) -> SoftLabels:
        """Return the soft labels of the tokens with the given indices."""
        teachers = [teacher._replace(h_RD=teacher.h_RD[rows_R]) for teacher in self.teachers]
        return SoftLabels(teachers, self.weight)

    def add_to(self, residual_RV: Tensor, labels_R: Tensor, start: int) -> None:
        """Change the gradient of the logits from that for the labels to that for the mixture with the soft labels.

        The gradient for the labels is p - onehot. A teacher with the probabilities q has the gradient q - onehot, and
        p - onehot - weight (q - onehot) = p - (weight q + (1 - weight) onehot).

        Args:
            residual_RV: Gradient of the logits of a chunk.
            labels_R: Label of each token of the chunk.
            start: Index of the first token of the chunk.
        """
        for teacher in self.teachers:
            logits_RV = teacher.logits(start, start + len(labels_R))
            _, taught_RV = teacher.operations.nll_and_residual(logits_RV, labels_R)
            residual_RV.sub_(taught_RV, alpha=self.weight / len(self.teachers))


def summed_nll(
    h_RD: Tensor,
    weight_VD: Tensor,
    labels_R: Tensor,
    operations: Operations = DEFAULT_OPERATIONS,
    *,
    z_loss: float = 0.0,
    softcap: float | None = None,
    soft_labels: SoftLabels | None = None,
) -> Tensor:
    """Return the negative log-likelihood of the labels under softmax(h W^T), summed over all tokens, in fp32.

    Args:
        h_RD: Hidden states.
        weight_VD: Weight of the output head.
        labels_R: Label of each token: a token id, or IGNORE_INDEX if the token does not contribute to the loss.
        operations: The model's operations.
        z_loss: Coefficient of the z-loss, which is logsumexp^2 of the logits (PaLM, arXiv:2204.02311) and prevents the
            logits from drifting. The z-loss contributes to the gradient, but not to the returned value.
        softcap: Softcap of the logits; see `softcapped`.
        soft_labels: Probabilities of teachers. They change the gradient, but not the returned value.
    """
    rows = _labeled_rows(labels_R)
    if rows is not None:
        h_RD, labels_R = h_RD[rows], labels_R[rows]
        soft_labels = soft_labels and soft_labels.of_rows(rows)
    total: Tensor = _SummedNLL.apply(h_RD, weight_VD, labels_R, operations, z_loss, softcap, soft_labels)
    return total


def softcapped(logits_RV: Tensor, softcap: float | None) -> Tensor:
    """Apply the softcap of Gemma 2 (arXiv:2408.00118): softcap x tanh(logits / softcap).

    If `softcap` is None, the logits are returned unchanged.
    """
    return logits_RV if softcap is None else softcap * torch.tanh(logits_RV / softcap)


def token_logprobs(
    h_BTD: Tensor,
    weight_VD: Tensor,
    labels_BT: Tensor,
    operations: Operations = DEFAULT_OPERATIONS,
    *,
    softcap: float | None = None,
) -> Tensor:
    """Return the log-probability of each label under softmax(h W^T), differentiable with respect to h and W.

    Logits are computed in chunks in the forward pass, and again in the backward pass, so that only one chunk is in
    memory. Losses such as DPO (arXiv:2305.18290) and GRPO (arXiv:2402.03300) require this function, because the
    gradient of these losses is not known in the forward pass. If the loss is the sum over all tokens, `summed_nll` is
    faster.

    Args:
        h_BTD: Hidden states, with any number of leading dimensions.
        weight_VD: Weight of the output head.
        labels_BT: Label of each token: a token id, or IGNORE_INDEX, for which the result is 0 and has no gradient.
        operations: The model's operations.
        softcap: Softcap of the logits; see `softcapped`.

    Returns:
        Log-probabilities of shape (B, T), in fp64 if the hidden states are fp64, otherwise in fp32.
    """
    h_RD, labels_R = h_BTD.reshape(-1, h_BTD.shape[-1]), labels_BT.reshape(-1)
    rows = _labeled_rows(labels_R)
    if rows is None:
        logprobs_R: Tensor = _TokenLogprobs.apply(h_RD, weight_VD, labels_R, operations, softcap)
    else:
        labeled: Tensor = _TokenLogprobs.apply(h_RD[rows], weight_VD, labels_R[rows], operations, softcap)
        logprobs_R = labeled.new_zeros(len(labels_R)).index_copy(0, rows, labeled)
    return logprobs_R.view(labels_BT.shape)


def _labeled_rows(labels_R: Tensor) -> Tensor | None:
    """Return the indices of the tokens with labels, or None if the loss is computed for all tokens.

    In instruction tuning, most tokens belong to prompts and have no labels, so their logits are not needed. On a GPU,
    the number of labels is unknown to the CPU until the GPU has computed all earlier operations, so all logits are
    computed.
    """
    if labels_R.device.type != "cpu":
        return None
    rows = (labels_R != IGNORE_INDEX).nonzero().squeeze(1)
    return rows if 0 < len(rows) < len(labels_R) else None


def _chunks(h_RD: Tensor, labels_R: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(h_RD.split(rows), labels_R.split(rows), strict=True)


def _chunk_rows(operations: Operations, weight_VD: Tensor, grad_weight: Tensor | None) -> int:
    """Return the number of rows per chunk for a pass that computes gradients."""
    rows = operations.chunk_rows(len(weight_VD))
    return rows if grad_weight is not None else max(1, min(rows, MAX_FROZEN_LOGITS // len(weight_VD)))


def _logits_and_slope(
    h_RD: Tensor, weight_VD: Tensor, operations: Operations, softcap: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return the logits of shape (R, V), and the derivative of the softcap, which is None if softcap is None."""
    logits_RV = softcapped(operations.logits(h_RD, weight_VD), softcap)
    return logits_RV, None if softcap is None else 1 - (logits_RV / softcap).square()


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
        soft_labels: SoftLabels | None,
    ) -> Tensor:
        weight = operations.rounded(weight_VD, h_RD.dtype)
        total = torch.zeros((), dtype=torch.float32, device=h_RD.device)
        grad_h = torch.empty_like(h_RD)
        grad_weight = torch.empty_like(weight_VD) if ctx.needs_input_grad[1] else None
        done = 0
        for h, labels in _chunks(h_RD, labels_R, _chunk_rows(operations, weight, grad_weight)):
            logits_RV, slope_RV = _logits_and_slope(h, weight, operations, softcap)
            nll_R, residual_RV = operations.nll_and_residual(logits_RV, labels, z_loss)
            total += nll_R.sum()
            if soft_labels is not None:
                soft_labels.add_to(residual_RV, labels, done)
            if slope_RV is not None:
                residual_RV = residual_RV * slope_RV
            operations.matmul(residual_RV, weight, grad_h[done : done + len(h)])
            if grad_weight is not None:
                operations.transposed_matmul(grad_weight, residual_RV, h, add=done > 0)
            done += len(h)
        # The gradients are not saved with `save_for_backward`, because `backward` scales them in place.
        ctx.gradients = grad_h, grad_weight
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None, None]:
        grad_h, grad_weight = ctx.gradients
        del ctx.gradients
        grad_weight = None if grad_weight is None else grad_weight.mul_(upstream[0])
        return grad_h.mul_(upstream[0]), grad_weight, None, None, None, None, None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h_RD: Tensor, weight_VD: Tensor, labels_R: Tensor, operations: Operations, softcap: float | None
    ) -> Tensor:
        ctx.save_for_backward(h_RD, weight_VD, labels_R)
        ctx.operations, ctx.softcap = operations, softcap
        weight = operations.rounded(weight_VD, h_RD.dtype)
        rows = CHUNK_ROWS
        # In adapter training, the logits use most of the memory.
        if ctx.needs_input_grad[0] and not ctx.needs_input_grad[1]:
            rows = max(1, min(rows, MAX_FROZEN_LOGITS // len(weight)))
        dtype = torch.promote_types(h_RD.dtype, torch.float32)
        logprobs_R = torch.empty(len(h_RD), dtype=dtype, device=h_RD.device)
        done = 0
        for h, labels in _chunks(h_RD, labels_R, rows):
            logits_RV = softcapped(operations.logits(h, weight), softcap).to(dtype)
            nll_R = F.cross_entropy(logits_RV, labels, ignore_index=IGNORE_INDEX, reduction="none")
            torch.neg(nll_R, out=logprobs_R[done : done + len(h)])
            done += len(h)
        return logprobs_R

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        h_RD, weight_VD, labels_R = ctx.saved_tensors
        operations: Operations = ctx.operations
        weight = operations.rounded(weight_VD, h_RD.dtype)
        grad_h = torch.empty_like(h_RD) if ctx.needs_input_grad[0] else None
        grad_weight = torch.empty_like(weight_VD) if ctx.needs_input_grad[1] else None
        done = 0
        for h, labels in _chunks(h_RD, labels_R, _chunk_rows(operations, weight, grad_weight)):
            logits_RV, slope_RV = _logits_and_slope(h, weight, operations, ctx.softcap)
            _, residual_RV = operations.nll_and_residual(logits_RV, labels)
            if slope_RV is not None:
                residual_RV = residual_RV * slope_RV
            # The factor is negative, because the residual is the gradient of the negative log-likelihood. The (R, D)
            # results are scaled instead of the (R, V) residual, which saves a pass over the logits.
            factor_R1 = -upstream[0][done : done + len(h), None].to(h.dtype)
            if grad_h is not None:
                operations.matmul(residual_RV, weight, grad_h[done : done + len(h)]).mul_(factor_R1)
            if grad_weight is not None:
                operations.transposed_matmul(grad_weight, residual_RV, h * factor_R1, add=done > 0)
            done += len(h)
        return grad_h, grad_weight, None, None, None
