"""Models that are only read may be kept in the dtype that they compute in: every family, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from groundup.kernels import keep_for_reading
from groundup.model import FAMILIES, Transformer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_in_bfloat16(family: str, tiny_model: Callable[..., Transformer]) -> None:
    changes = {"n_kv_heads": 4} if FAMILIES[family].multi_head_only else {}
    model = tiny_model(100, family=family, **changes)
    ids = torch.arange(40)[None]
    exact = model(ids)
    keep_for_reading(model, "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    read = model(ids).float()
    assert read.isfinite().all()
    # 8 bits of mantissa, through two layers: some hundredths of what the logits spread over.
    assert (read - exact).std() < 0.03 * exact.std()
    assert (read.argmax(-1) == exact.argmax(-1)).float().mean() > 0.8
