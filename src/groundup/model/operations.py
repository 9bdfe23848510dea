"""The arithmetic between a model's weights, in plain PyTorch: what `groundup.distributed` may replace by faster ways.

Each module asks its `operations` for these; one object serves a whole model. A replacement gives the same values and
gradients within the rounding of the dtype (`tests/parity/test_native_operations.py`).

Shape letters: B batch, T queries, S keys, N query heads, K kv heads, H head_dim, R rows (tokens), D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.model.attend import attend, softcapped_attention
from groundup.model.families.base import Activation
from groundup.model.lean import FrozenLinear, FrozenRMSNorm, Gated, activated, reciprocal_rms

CHUNK_ROWS = 1024  # at an 8k vocabulary 32 MB of fp32 logits, about an L3 cache; larger chunks gave nothing


class Operations:
    """Plain PyTorch, on any device and in any dtype.

    Attributes:
        lean: keep less for backward passes, at a few per cent more work: what is kept of the layers is most of the
            memory where weights are frozen.
    """

    lean = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a copied model computes by the same operations, and a library of kernels cannot be copied."""
        return self

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b in the dtype of x, whatever dtype the weights are kept in."""
        bias = None if bias is None else bias.to(x.dtype)
        if weight.dtype != x.dtype and x.requires_grad and not weight.requires_grad:
            return FrozenLinear.apply(x, weight, bias)
        return F.linear(x, weight.to(x.dtype), bias)

    def linears(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """`linear` by each of several weights."""
        return [self.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight (arXiv:1910.07467), computed in fp32."""
        if x.requires_grad and not weight.requires_grad:
            return FrozenRMSNorm.apply(x, weight, eps)
        x32 = x.float()
        # Rounded before the weight is applied, as transformers does: equal logits also in bf16.
        return weight.to(x.dtype) * (x32 * reciprocal_rms(x32, eps)).to(x.dtype)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """(x - mean(x)) / deviation(x) * weight + bias (arXiv:1607.06450), computed in fp32."""
        return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)

    def activate(self, activation: Activation, gate: Tensor, up: Tensor | None = None) -> Tensor:
        """activation(gate) * up (arXiv:2002.05202), or activation(gate) alone."""
        if up is None:
            return activated(gate, activation)
        if torch.compiler.is_compiling() or not gate.requires_grad:  # a compiler chooses itself what it keeps
            return activated(gate, activation) * up
        out: Tensor = Gated.apply(gate, up, activation)
        return out

    def feed_forward(
        self, x: Tensor, activation: Activation, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        """down(activation(gate(x)) * up(x)), or without up; weights and biases in the order gate, up, down."""
        inner = self.linears(x, weights[:-1], biases[:-1])
        return self.linear(self.activate(activation, *inner), weights[-1], biases[-1])

    def rotate(self, x_BTNH: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Turn each pair (x[i], x[i + H/2]) by the angle of its position: cos and sin, (B, T, 1, H).

        If those are narrower than the heads, features beyond their width are returned as they are.
        """
        cos, sin = (part.to(x_BTNH.dtype) for part in rope)
        if (width := cos.shape[-1]) < x_BTNH.shape[-1]:
            turned = self.rotate(x_BTNH[..., :width], rope)
            return torch.cat([turned, x_BTNH[..., width:]], dim=-1)
        first, second = x_BTNH.chunk(2, dim=-1)
        return x_BTNH * cos + torch.cat([-second, first], dim=-1) * sin

    def seen(self, positions_BT: Tensor, document_ids_BT: Tensor | None, window: int | None) -> Tensor | None:
        """Who may look at whom within rows of packed documents, as `attend` wants to be told; None: causality says it.

        A token sees the tokens of its own document before it and itself, with a window the last `window` of those.

        Returns:
            Here booleans, (B, 1, T, T).
        """
        length = positions_BT.shape[1]
        narrow = window is not None and window < length
        if document_ids_BT is None and not narrow:
            return None
        seen_TS = torch.ones(length, length, dtype=torch.bool, device=positions_BT.device).tril()
        if narrow and window is not None:
            seen_TS = seen_TS.triu(1 - window)
        if document_ids_BT is None:
            return seen_TS[None, None]
        same_BTS = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
        return (same_BTS & seen_TS)[:, None]

    def attend(
        self,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        seen: Tensor | None,
        scale: float,
        softcap: float | None = None,
    ) -> Tensor:
        """softmax(q k^T * scale) v over the keys that `seen` says; (B, T, N, H).

        Args:
            softcap: scores are softcap x tanh(scores / softcap) before softmax.
        """
        if softcap is not None:
            return softcapped_attention(q_BTNH, k_BSKH, v_BSKH, seen, scale, softcap)
        return attend(q_BTNH, k_BSKH, v_BSKH, seen, scale, lean=self.lean)

    def chunk_rows(self, vocab_size: int) -> int:
        """How many rows of logits the loss should hold at a time."""
        return CHUNK_ROWS

    def nll_and_residual(self, logits_RV: Tensor, labels_R: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Each row's negative log-likelihood, (R,) fp32, and its gradient by the logits: softmax - onehot.

        Rows labelled IGNORE_INDEX give 0 and a zero gradient. The logits may be overwritten.

        Args:
            z_loss: what the gradient is of has this times the square of the log of softmax's denominator beside it.
        """
        logits = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
        kept_R1 = (labels_R != IGNORE_INDEX).unsqueeze(1)
        targets_R1 = labels_R.clamp(min=0).unsqueeze(1)
        lse_R1 = logits.logsumexp(1, keepdim=True)
        nll_R1 = (lse_R1 - logits.gather(1, targets_R1)) * kept_R1
        # In place: of 512 rows of a vocabulary of 49k each copy has 100 MB.
        softmax_RV = logits.sub_(lse_R1).exp_()
        if z_loss:
            softmax_RV.mul_(1 + 2 * z_loss * lse_R1)
        residual_RV = softmax_RV.scatter_add_(1, targets_R1, -torch.ones_like(lse_R1)).mul_(kept_R1)
        return nll_R1.squeeze(1), residual_RV.to(logits_RV.dtype)

    def transposed_product(self, out_VD: Tensor, left_RV: Tensor, right_RD: Tensor, *, add: bool) -> None:
        """out = or += left^T right: what a weight's gradient is made of."""
        product = left_RV.t() @ right_RD
        out_VD.add_(product) if add else out_VD.copy_(product)


PLAIN = Operations()


class Accelerated(nn.Module):
    """A module whose arithmetic can be replaced: see `use_operations`."""

    operations = PLAIN


def use_operations(model: nn.Module, operations: Operations) -> None:
    """Let all of a model compute by `operations`."""
    for module in model.modules():
        if isinstance(module, Accelerated):
            module.operations = operations
