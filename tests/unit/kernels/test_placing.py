"""A run that goes on elsewhere is told what is missing there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from groundup.core.errors import ResourceError
from groundup.kernels import Machine, place
from groundup.model import Transformer


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_run_that_was_begun_on_a_gpu(tiny_model: Callable[..., Transformer]) -> None:
    elsewhere = Machine("cuda", "bfloat16", compile=True, threads=1, product_flops=1e14)
    with pytest.raises(ResourceError, match=r"device cuda: not here.*--out"):
        place(tiny_model(64, context_length=16), elsewhere)
