"""PEFT loads groundup's adapters and groundup loads PEFT's: equal logits, merged and not merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from family_shapes import NO_CLASSIFIER, small
from groundup.hub import load_classifier, load_model, save_model
from groundup.hub.adapters import load_adapter, save_adapter
from groundup.model import FAMILIES, SequenceClassifier, Transformer
from groundup.model.lora import LoRA, add_lora, fuse_lora, lora_layers

pytestmark = pytest.mark.interop
IDS = torch.arange(40).view(2, 20)


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    family: str = request.param
    shape: dict[str, Any] = {"dim": 32, "n_heads": 4, "head_dim": 8, "ffn_dim": 48, "vocab_size": 64}
    torch.manual_seed(0)
    model = Transformer(small(family, context_length=64, **shape))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    save_model(tmp_path / "base", model, bos_id=0, eos_id=0)
    return tmp_path / "base"


def query_layer(base: Path) -> str:
    """The name of a query projection in transformers."""
    family = json.loads((base / "config.json").read_text(encoding="utf-8"))["model_type"]
    return {"gpt2": "c_attn", "gpt_neox": "query_key_value", "phi3": "qkv_proj"}.get(family, "q_proj")


def theirs(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base).eval()


def close(ours: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "lora",
    [
        LoRA(rank=4, alpha=8),
        LoRA(rank=3, alpha=7, rank_stabilized=True, targets=("q_proj", "v_proj", "layers.1.mlp.up_proj")),
    ],
    ids=["all", "some"],
)
@torch.no_grad()
def test_peft_loads_groundup_adapters(base: Path, tmp_path: Path, lora: LoRA) -> None:
    from peft import PeftModel

    model = load_model(base)
    before = model(IDS)
    add_lora(model, lora)
    for layer in lora_layers(model).values():
        layer.lora_B.normal_(std=0.2)
    save_adapter(tmp_path / "adapter", model, base=str(base))
    assert (model(IDS) - before).abs().max() > 0.05

    peer = PeftModel.from_pretrained(theirs(base), tmp_path / "adapter")
    loaded = peer.load_adapter(tmp_path / "adapter", adapter_name="again")
    assert not loaded.unexpected_keys
    assert not [name for name in loaded.missing_keys if "again" in name]
    close(model(IDS), peer(IDS).logits)
    fuse_lora(model)
    close(model(IDS), peer.merge_and_unload()(IDS).logits)


@torch.no_grad()
def test_groundup_loads_peft_adapters(base: Path, tmp_path: Path) -> None:
    """Ranks and scales differ by layer, as `rank_pattern` allows."""
    from peft import LoraConfig, get_peft_model

    fused = query_layer(base)
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules="all-linear", rank_pattern={fused: 2}, alpha_pattern={fused: 9},
        fan_in_fan_out=fused == "c_attn", task_type="CAUSAL_LM",
    )  # fmt: skip
    peer = get_peft_model(theirs(base), config).eval()
    torch.manual_seed(1)
    for name, parameter in peer.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.2)
    peer.save_pretrained(tmp_path / "adapter")
    model = load_model(base)
    assert len(load_adapter(tmp_path / "adapter", model)) == len(lora_layers(model)) >= 12
    close(model(IDS), peer(IDS).logits)
    fuse_lora(model)
    close(model(IDS), peer(IDS).logits)


@torch.no_grad()
def test_classifier_adapters_include_the_head(base: Path, tmp_path: Path) -> None:
    """PEFT trains the head in full (`modules_to_save`); otherwise labels would be random."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForSequenceClassification

    if json.loads((base / "config.json").read_text(encoding="utf-8"))["model_type"] in NO_CLASSIFIER:
        pytest.skip("transformers has no classifier of this family")

    def peer_base() -> Any:
        found = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3).eval()
        found.config.pad_token_id = 0
        return found

    last = torch.tensor([IDS.shape[1] - 1] * 2)
    ours = SequenceClassifier.from_language_model(load_model(base), 3, seed=0)
    add_lora(ours, LoRA(rank=4))
    for layer in lora_layers(ours).values():
        layer.lora_B.normal_(std=0.2)
    ours.score.weight.normal_()
    save_adapter(tmp_path / "ours", ours, base=str(base))
    peer = PeftModel.from_pretrained(peer_base(), tmp_path / "ours")
    close(ours(IDS + 1, last), peer(IDS + 1).logits)

    fused = query_layer(base)
    config = LoraConfig(r=4, target_modules=[fused], task_type="SEQ_CLS", fan_in_fan_out=fused == "c_attn")
    peer = get_peft_model(peer_base(), config).eval()
    for name, parameter in peer.named_parameters():
        if "lora_B" in name or "score" in name:
            parameter.normal_(std=0.2)
    peer.save_pretrained(tmp_path / "theirs")
    again, labels = load_classifier(tmp_path / "theirs")
    assert labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    close(again(IDS + 1, last), peer(IDS + 1).logits)
