"""AdamW with the C++ kernels, and the bf16 copies of weights that it writes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from groundup.kernels.native_library import multiplies_bf16, native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.kernels.native_optimizer import NativeAdamW, adamw_of
from groundup.kernels.rounded_weights import RoundedWeights
from groundup.model import Transformer, use_operations
from groundup.optim import Optimizer, OptimizerConfig

LIBRARY = native_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ kernels on this machine")

IDS = torch.arange(32).view(2, 16)
CONFIG = OptimizerConfig(matrix_lr=0.01, matrices="adamw", weight_decay=0.1)


def natively_trained(model: Transformer) -> tuple[Transformer, RoundedWeights]:
    """Let a model compute in bf16 with the C++ kernels."""
    assert LIBRARY is not None
    operations = NativeOperations(LIBRARY)
    use_operations(model.requires_grad_(True), operations)
    model.model.compute_dtype = torch.bfloat16
    return model, operations.matmuls.weights


def step(model: Transformer, optimizer: Optimizer, grad_factor: float | None = None) -> float:
    loss = model(IDS, labels_BT=IDS.roll(-1, 1)) / IDS.numel()
    loss.backward()
    optimizer.step(1.0, None if grad_factor is None else torch.tensor(grad_factor))
    return float(loss.detach())


def test_updates_match_torch_whose_state_it_loads(tiny_model: Callable[..., Transformer]) -> None:
    """An old checkpoint resumes with the kernel: the keys and the step count of torch's AdamW."""
    (ours, _), (usual, _) = (natively_trained(tiny_model(64, context_length=16)) for _ in range(2))
    theirs = Optimizer(usual, CONFIG)
    step(usual, theirs)
    ours.load_state_dict(usual.state_dict())
    mine = Optimizer(ours, CONFIG, adamw=adamw_of(ours))
    mine.load_state(theirs.state())
    for factor in (0.25, None):
        usual(IDS, labels_BT=IDS.roll(-1, 1)).backward()
        for parameter, other in zip(ours.parameters(), usual.parameters(), strict=True):
            assert other.grad is not None
            parameter.grad = other.grad.clone()
        for optimizer in (mine, theirs):
            optimizer.step(1.0, None if factor is None else torch.tensor(factor))
        expected = theirs.state()
        assert mine.state().keys() == expected.keys()
        for name, value in mine.state().items():
            torch.testing.assert_close(value, expected[name], atol=1e-8, rtol=1e-5, msg=name)
        for (name, parameter), other in zip(ours.named_parameters(), usual.parameters(), strict=True):
            torch.testing.assert_close(parameter, other, atol=2e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_kept_copies_change_no_loss(tiny_model: Callable[..., Transformer], matrices: str) -> None:
    """A copy that is not renewed by an update or by new weights trains with old weights."""
    config = OptimizerConfig(matrix_lr=0.01, matrices=matrices)  # type: ignore[arg-type]
    (model, weights), (reference, none) = (natively_trained(tiny_model(64, context_length=16)) for _ in range(2))
    optimizers = [Optimizer(each, config, adamw=adamw_of(each)) for each in (model, reference)]
    none._copies.clear()  # nothing is tracked, so all copies are new
    for number in range(6):
        if number == 3:  # as in a rollback
            for each in (model, reference):
                with torch.no_grad():
                    for parameter in each.parameters():
                        parameter.copy_(parameter * 0.5)
        assert step(model, optimizers[0]) == step(reference, optimizers[1])
    copies = [weights.to_write(parameter) for parameter in model.parameters()]
    kept = [(copy, p) for copy, p in zip(copies, model.parameters(), strict=True) if copy is not None]
    assert kept if matrices == "adamw" else len(kept) <= 1  # with Muon, only of the output head
    assert all(torch.equal(copy, parameter.bfloat16()) for copy, parameter in kept)


def test_copies_are_rounded_as_by_pytorch() -> None:
    """CPUs without bf16 instructions round in integer arithmetic."""
    assert LIBRARY is not None
    bits = torch.randint(-(2**31), 2**31, (100_000,), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    halfway = (bits & -65536) | 0x8000  # exactly between two bf16 values
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 3.4e38, -3.4e38, 1e-45, -1e-40])
    weight = torch.cat([bits.view(torch.float32), halfway.view(torch.float32), special])
    # NaN whose upper half is that of infinity, and denormal numbers, which bf16 instructions flush to zero
    weight = torch.cat(
        [weight, torch.tensor([0x7F800001, 0x7F80FFFF, 0x00008000], dtype=torch.int32).view(torch.float32)]
    )
    if multiplies_bf16(LIBRARY):
        weight = weight[~(weight.abs() < torch.finfo(torch.float32).tiny)]
    operations, parameter = NativeOperations(LIBRARY), torch.nn.Parameter(weight)
    operations.matmuls.weights.track([parameter])
    operations.matmuls.weights.of(parameter).zero_()
    parameter.grad = torch.zeros_like(weight)
    NativeAdamW([parameter], operations=operations, lr=0.0, weight_decay=0.0).step()  # overwrites the copy
    rounded, expected = operations.matmuls.weights.of(parameter), weight.bfloat16()
    assert torch.equal(rounded.isnan(), expected.isnan())
    assert torch.equal(rounded[~expected.isnan()].view(torch.int16), expected[~expected.isnan()].view(torch.int16))
