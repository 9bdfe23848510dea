"""Models of every family can be cast to bf16 for inference with almost equal logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from groundup.kernels import cast_for_inference
from groundup.model import FAMILIES, Transformer


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_logits_are_close_to_fp32(family: str, tiny_model: Callable[..., Transformer]) -> None:
    changes = {"n_kv_heads": 4} if FAMILIES[family].multi_head_only else {}
    model = tiny_model(100, family=family, **changes)
    ids = torch.arange(40)[None]
    exact = model(ids)
    cast_for_inference(model, "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    rounded = model(ids).float()
    assert rounded.isfinite().all()
    # bf16 has an 8-bit mantissa; two layers give an error of a few percent of the logits' standard deviation.
    assert (rounded - exact).std() < 0.03 * exact.std()
    assert (rounded.argmax(-1) == exact.argmax(-1)).float().mean() > 0.8
