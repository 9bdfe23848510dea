"""`torch.compile` with adapters gives the values and gradients of eager mode.

Frozen weights change the compiled code: the backward passes of `groundup.model.operations`, and layers that share one
compiled body although only some of them are adapted.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.kernels import Machine, eager_mode, measure_machine, prepare_model
from groundup.model import ModelConfig, Transformer, init_weights
from groundup.model.lora import LoRA, add_lora, lora_layers

TARGETS = ("q_proj", "layers.0.mlp.up_proj")


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    if not measure_machine(threads=1, native=False).compile:
        pytest.skip("torch.compile does not work here: no C++ compiler")


def with_adapters(targets: tuple[str, ...]) -> Transformer:
    shape = {"dim": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 32, "ffn_dim": 96}
    model = Transformer(ModelConfig("llama", vocab_size=160, context_length=64, tie_embeddings=True, **shape))
    init_weights(model, 0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # Zero-initialized parameters would hide the gradients of others.
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    add_lora(model, LoRA(rank=4, targets=targets))
    for layer in lora_layers(model).values():
        layer.lora_B.data.normal_(0, 0.05, generator=generator)
    return model


def outcome(model: Transformer) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients on a packed batch."""
    ids = torch.randint(160, (2, 64), generator=torch.Generator().manual_seed(2))
    documents = (torch.arange(64) >= 23).long().expand(2, 64)
    positions = (torch.arange(64) - 23 * documents).expand(2, 64)
    model.zero_grad(set_to_none=True)
    loss = model(ids, positions, documents, labels_BT=ids.roll(-1, 1)) / ids.numel()
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.interop), "bfloat16"])  # 30 s each.
def test_values_and_gradients_equal_eager_mode(dtype: str) -> None:
    """In bf16, the error against fp32 is the same as without compilation."""
    exact, slopes = outcome(with_adapters(TARGETS))
    model = with_adapters(TARGETS)
    prepare_model(model, Machine("cpu", dtype, True, 1, 1e11))
    loss, gradients = outcome(model)
    with eager_mode():
        usual, theirs = outcome(model)
    assert abs(loss - exact) <= max(2 * abs(usual - exact), 1e-5)
    assert list(gradients) == list(theirs) == [n for n in dict(model.named_parameters()) if "lora_" in n]
    for name, slope in slopes.items():
        assert slope.norm() > 0
        near = max(1.3 * float((theirs[name] - slope).norm()), 1e-4 * float(slope.norm()))
        assert (gradients[name] - slope).norm() <= near, name
