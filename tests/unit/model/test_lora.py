"""LoRA: an untrained adapter changes nothing, only adapters are trained, and merging does not change outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from family_shapes import kv_heads
from groundup.core.errors import ConfigError
from groundup.model import FAMILIES, Transformer
from groundup.model.lora import LoRA, add_lora, copy_sharing_weights, fuse_lora, linear_layers, lora_layers, remove_lora
from groundup.optim import Optimizer, OptimizerConfig

IDS = torch.arange(40).view(2, 20)


def trained(model: Transformer, steps: int = 3) -> None:
    """Train a few steps, so that no adapter weight is zero."""
    optimizer = Optimizer(model, OptimizerConfig())
    for _ in range(steps):
        model(IDS, labels_BT=IDS.roll(-1, 1)).backward()
        optimizer.step(1.0)


def make(tiny_model: Callable[..., Transformer], family: str) -> Transformer:
    return tiny_model(64, family=family, n_kv_heads=kv_heads(family, 4, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_only_adapters_are_trained_and_merging_keeps_outputs(
    tiny_model: Callable[..., Transformer], family: str
) -> None:
    """Known bugs of other libraries: merging applied the scale twice, or in the wrong dtype."""
    model = make(tiny_model, family)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = model(IDS)
    names = add_lora(model, LoRA(rank=4, alpha=8))
    assert names == linear_layers(make(tiny_model, family)) == list(lora_layers(model))
    assert torch.equal(model(IDS), before)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {f"{name}.{factor}" for name in names for factor in ("lora_A", "lora_B")}

    trained(model)
    fine_tuned = model(IDS)
    assert (fine_tuned - before).abs().max() > 0.01
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in base.items())
    assert fuse_lora(model) == names
    assert set(model.state_dict()) == set(base)
    torch.testing.assert_close(model(IDS), fine_tuned, atol=1e-5, rtol=0)


def test_equal_seeds_give_equal_adapters(tiny_model: Callable[..., Transformer]) -> None:
    def factors(seed: int) -> torch.Tensor:
        model = tiny_model(64)
        add_lora(model, LoRA(rank=2), seed=seed)
        return torch.cat([layer.lora_A.flatten() for layer in lora_layers(model).values()])

    assert torch.equal(factors(1), factors(1))
    assert not torch.equal(factors(1), factors(2))


@pytest.mark.parametrize(
    ("targets", "adapted"),
    [(("q_proj", "v_proj"), 4), (("self_attn.o_proj",), 2), (("layers.1.mlp.up_proj",), 1)],
)
def test_targets_are_suffixes_of_names(
    tiny_model: Callable[..., Transformer], targets: tuple[str, ...], adapted: int
) -> None:
    assert len(add_lora(tiny_model(64), LoRA(targets=targets))) == adapted


@pytest.mark.parametrize("target", ["q_prj", "proj", "lm_head", "embed_tokens", "", "query"])
def test_a_target_without_match_is_an_error(tiny_model: Callable[..., Transformer], target: str) -> None:
    """Other libraries silently ignore a misspelled target, or train nothing."""
    model = tiny_model(64)
    with pytest.raises(ConfigError, match="down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"):
        add_lora(model, LoRA(targets=("v_proj", target)))
    assert not lora_layers(model)


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("inf")}, {"alpha": float("nan")}, {"dropout": 1.0}]
)
def test_invalid_settings_are_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="positive"):
        LoRA(**wrong)  # type: ignore[arg-type]


def test_the_scale_does_not_depend_on_the_rank_twice() -> None:
    assert LoRA(rank=16, alpha=32).scale == 2
    assert LoRA(rank=16, alpha=32, rank_stabilized=True).scale == 8


def test_an_adapter_computes_in_the_dtype_of_its_input(tiny_model: Callable[..., Transformer]) -> None:
    """fp32 adapters once changed the residual stream of a bf16 model to fp32."""
    model = tiny_model(64)
    add_lora(model, LoRA(rank=2))
    model.model.compute_dtype = torch.bfloat16
    assert model.model(IDS).dtype == torch.bfloat16


def test_frozen_weights_do_not_change_adapter_gradients(tiny_model: Callable[..., Transformer]) -> None:
    """Memory-saving operations for frozen weights must give the same adapter gradients."""
    for dtype, near in ((None, 1e-5), (torch.bfloat16, 0.05)):
        model = tiny_model(64)
        add_lora(model, LoRA(rank=4))
        for layer in lora_layers(model).values():
            layer.lora_B.data.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
        model.model.compute_dtype = dtype
        learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
        losses, gradients = [], []
        for _ in range(2):
            losses.append(model(IDS, labels_BT=IDS.roll(-1, 1)))
            gradients.append(torch.autograd.grad(losses[-1], list(learned.values())))
            model.requires_grad_(True)
        torch.testing.assert_close(*losses)
        for name, frozen, usual in zip(learned, *gradients, strict=True):
            assert (frozen - usual).norm() <= near * usual.norm(), name


def test_dropout_applies_in_training_only(tiny_model: Callable[..., Transformer]) -> None:
    """Samples during training must be without dropout."""
    model = tiny_model(64)
    add_lora(model, LoRA(rank=4, dropout=0.5))
    for layer in lora_layers(model).values():
        layer.lora_B.data.normal_(std=0.2)
    model.train()
    assert not torch.equal(model(IDS), model(IDS))
    with torch.no_grad():
        assert torch.equal(model(IDS), model(IDS))


def test_removing_an_adapter_restores_the_base(tiny_model: Callable[..., Transformer]) -> None:
    """Several adapters share the weights of one base model."""
    base = tiny_model(64)
    before, names = base(IDS), set(base.state_dict())
    fine_tuned = copy_sharing_weights(base)
    add_lora(fine_tuned, LoRA(rank=4))
    for layer in lora_layers(fine_tuned).values():
        layer.lora_B.data.normal_(std=0.2)
    assert fine_tuned.lm_head.weight.data_ptr() == base.lm_head.weight.data_ptr()
    assert torch.equal(base(IDS), before)
    assert not torch.equal(fine_tuned(IDS), before)
    assert set(base.state_dict()) == names
    remove_lora(fine_tuned)
    assert torch.equal(fine_tuned(IDS), before)
    assert set(fine_tuned.state_dict()) == names
