"""The kernels for CPUs that lack some of this CPU's instructions: whole training steps, Muon and sampling."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

from family_shapes import small
from groundup.kernels.native_library import native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.model import Transformer, init_weights, use_operations

LIBRARY = native_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ kernels on this machine")


@pytest.fixture(params=["without_vnni", "avx2"])
def library(request: pytest.FixtureRequest) -> ctypes.CDLL:
    kernels: ctypes.CDLL = request.getfixturevalue(request.param)
    return kernels


def loss_and_gradients(library: ctypes.CDLL | None, family: str) -> tuple[float, list[Tensor]]:
    model = Transformer(small(family))
    init_weights(model, 0)
    use_operations(model, NativeOperations(library))  # type: ignore[arg-type]
    model.model.compute_dtype = torch.bfloat16
    ids = torch.randint(0, small(family).vocab_size, (3, 27), generator=torch.Generator().manual_seed(0))
    loss = model(ids, labels_BT=ids.roll(-1, 1)) / ids.numel()
    loss.backward()
    return float(loss.detach()), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma2", "olmo2"])
def test_losses_and_gradients(library: ctypes.CDLL, family: str) -> None:
    loss, grads = loss_and_gradients(library, family)
    expected, usual = loss_and_gradients(LIBRARY, family)
    assert loss == pytest.approx(expected, rel=1e-3)
    for ours, theirs in zip(grads, usual, strict=True):
        assert (ours - theirs).norm() <= 0.02 * theirs.norm()


@pytest.mark.parametrize("shape", [(64, 96), (160, 32)])
def test_muon(library: ctypes.CDLL, shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (ours,) = NativeOperations(library).orthogonalize([matrix.clone()])
    (theirs,) = NativeOperations(LIBRARY).orthogonalize([matrix.clone()])  # type: ignore[arg-type]
    assert (ours - theirs).norm() <= 0.02 * theirs.norm()


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.0), (40, 0.9, 0.0), (0, 1.0, 0.05)])
def test_sampling(library: ctypes.CDLL, top_k: int, top_p: float, min_p: float) -> None:
    logits = 3 * torch.randn(5003, generator=torch.Generator().manual_seed(0))

    def sampled(kernels: ctypes.CDLL) -> list[int]:
        kernels.groundup_sample.restype = ctypes.c_int64
        limits = (ctypes.c_int64(top_k), ctypes.c_double(top_p), ctypes.c_double(min_p))
        address, size, temperature = ctypes.c_void_p(logits.data_ptr()), ctypes.c_int64(5003), ctypes.c_double(0.8)
        return [
            kernels.groundup_sample(address, size, temperature, *limits, ctypes.c_double(point / 50))
            for point in range(50)
        ]

    assert LIBRARY is not None
    assert sampled(library) == sampled(LIBRARY)
