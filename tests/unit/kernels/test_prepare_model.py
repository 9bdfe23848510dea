"""A run that resumes on another machine gets an error that names the missing device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from groundup.core.errors import ResourceError
from groundup.kernels import Machine, prepare_model
from groundup.model import Transformer


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_resume_of_a_gpu_run_without_gpu(tiny_model: Callable[..., Transformer]) -> None:
    machine = Machine("cuda", "bfloat16", compile=True, threads=1, matmul_flops=1e14)
    with pytest.raises(ResourceError, match=r"device cuda: not available.*--out"):
        prepare_model(tiny_model(64, context_length=16), machine)
