"""Softcapped attention and logits (Gemma 2): values and gradients equal the formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from groundup.core.types import IGNORE_INDEX
from groundup.model.loss import summed_nll, token_logprobs
from groundup.model.scaled_attention import SOFTCAPPED_QUERIES, softcapped_attention


@pytest.mark.parametrize("cached", [0, 5])
@pytest.mark.parametrize("length", [7, SOFTCAPPED_QUERIES + 3])
def test_blockwise_attention_equals_full_attention(length: int, cached: int) -> None:
    """A block must include its last keys, and the gradient must include the derivative of tanh."""
    torch.manual_seed(0)
    q = torch.randn(1, length, 4, 8, requires_grad=True)
    k, v = (torch.randn(1, cached + length, 2, 8, requires_grad=True) for _ in range(2))
    places = torch.arange(cached + length)
    attn_mask = (places <= places[cached:, None])[None, None]
    if cached:
        attn_mask = attn_mask & (places > places[cached:, None] - 4)
    ours = softcapped_attention(q, k, v, attn_mask if cached else None, 0.5, 2.0)
    scores = torch.einsum("btnh,bsnh->bnts", q, k.repeat_interleave(2, dim=2)) * 0.5
    scores = (2.0 * torch.tanh(scores / 2.0)).masked_fill(~attn_mask, float("-inf"))
    expected = torch.einsum("bnts,bsnh->btnh", scores.softmax(-1), v.repeat_interleave(2, dim=2))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    upstream = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, (q, k, v), upstream), torch.autograd.grad(expected, (q, k, v), upstream), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_the_gradient_of_the_softcapped_loss(z_loss: float) -> None:
    """The chunked loss has a custom backward; without the derivative of tanh, gradients are too large."""
    torch.manual_seed(0)
    h, weight = torch.randn(1500, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    labels = torch.randint(50, (1500,))
    labels[::7] = IGNORE_INDEX
    ours = summed_nll(h, weight, labels, z_loss=z_loss, softcap=1.5)
    logits = 1.5 * torch.tanh(h @ weight.t() / 1.5)
    nll = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(ours, nll)
    rows = F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(-token_logprobs(h, weight, labels, softcap=1.5), rows)
    squares = z_loss * logits[labels != IGNORE_INDEX].logsumexp(1).square().sum()
    for mine, other in zip(
        torch.autograd.grad(ours, (h, weight)), torch.autograd.grad(nll + squares, (h, weight)), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-4)
