"""The kernels of a run are chosen by measurement, and saved with the run."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import torch

from family_shapes import kv_heads, variants
from groundup.kernels import Machine, kernel_timing
from groundup.kernels.kernel_choice import ChosenKernel, KernelChoice, MatmulGroup, matmul_groups
from groundup.kernels.matmuls import IMPLEMENTATIONS, Matmuls
from groundup.kernels.native_library import native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.model import FAMILIES, ModelConfig, Transformer, use_operations

LIBRARY = native_library()
needs_kernels = pytest.mark.skipif(LIBRARY is None, reason="no C++ kernels on this machine")


def config_of(family: Any, **changes: Any) -> ModelConfig:
    head_dim = 64 if FAMILIES[family].multi_head_only else 96  # n_heads x head_dim may differ from dim
    shape = {"dim": 128, "n_layers": 3, "n_heads": 2, "head_dim": head_dim, "ffn_dim": 352, "vocab_size": 160}
    return ModelConfig(
        family, **shape | {"n_kv_heads": kv_heads(family, 2, 1), "context_length": 32} | variants(family) | changes
    )


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_every_matmul_of_a_training_step_is_timed(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with other sizes in `matmul_groups` would be timed but never used."""
    config, used = config_of(family), set()
    find_kernel = Matmuls._kernel

    def record(self: Matmuls, operation: Any, inputs: int, outputs: Any) -> Any:
        group = MatmulGroup(operation, inputs, tuple(outputs))
        used.add(group)
        return find_kernel(self, *(operation, inputs, group.outputs))

    monkeypatch.setattr(Matmuls, "_kernel", record)
    model = Transformer(config)
    model.model.compute_dtype = torch.bfloat16
    use_operations(model, NativeOperations(LIBRARY))  # type: ignore[arg-type]
    ids = torch.arange(32)[None]
    model(ids, labels_BT=ids).backward()
    assert {each for each in used if each.is_native and not each.is_plain} == set(matmul_groups(config))


@needs_kernels
@pytest.mark.parametrize("slow", ["native", "torch"])
def test_the_faster_kernel_is_chosen(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIBRARY is not None
    monkeypatch.setattr(kernel_timing, "_SECONDS", 0.1)
    for operation, kernels in IMPLEMENTATIONS.items():
        fast = kernels[slow]
        monkeypatch.setitem(IMPLEMENTATIONS, operation, kernels | {slow: lambda *a, f=fast: (time.sleep(0.02), f(*a))})
    config = config_of("llama")
    found = kernel_timing.choose_kernels(config, LIBRARY, 1e9)
    assert [choice.group for choice in found.choices] == matmul_groups(config)
    assert all(choice.kernel != slow and choice.milliseconds[slow] > 20 for choice in found.choices)


def test_unsupported_sizes_are_computed_by_pytorch() -> None:
    """The C++ kernels would write past the end of the matrices."""
    groups = matmul_groups(config_of("llama", dim=48, n_heads=1, n_kv_heads=1, head_dim=32, ffn_dim=80))
    assert {group.operation for group in groups} == {"weight_gradients"}
    assert KernelChoice().kernel_of(MatmulGroup("feed_forward", 48, (80, 80))) == "torch"


def test_the_choice_is_saved_with_the_machine() -> None:
    group = MatmulGroup("weight_gradients", 64, (64, 32))
    choice = KernelChoice(choices=(ChosenKernel(group, "torch", {"native": 1.5, "torch": 1.0}),))
    machine = Machine("cpu", "bfloat16", False, 2, 7e11, native=True, kernels=choice)
    saved = json.loads(json.dumps(machine.to_json()))
    assert Machine.from_json(saved) == machine
    assert choice.kernel_of(group) == "torch"
    assert machine.describe() == [("matmul kernels", "PyTorch 1 (measured)")]
