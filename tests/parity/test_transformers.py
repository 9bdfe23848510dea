"""Our directories in transformers, and theirs here: the same logits, or a user's model is lost in translation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.checkpoint import load_model, save_model
from groundup.model import FAMILIES, ModelConfig, Transformer

transformers = pytest.importorskip("transformers", reason="the parity tests need transformers: pip install '.[dev]'")

SHAPES = [(family, tied) for family in FAMILIES for tied in (True, False)]


def _config(family: str, tied: bool) -> ModelConfig:
    kv_heads = 4 if family == "gpt2" else 2
    head_dim = 16 if family == "gpt2" else 24  # where a family allows it, heads that do not add up to dim
    return ModelConfig(family, 64, 3, 4, kv_heads, head_dim, 160, 512, 32, 5_000.0, 1e-5, tied)


def _random(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_transformers_loads_ours_and_gives_it_back(family: str, tied: bool, tmp_path: Path) -> None:
    model = Transformer(_config(family, tied))
    _random(model, 0)
    ids = torch.randint(0, 512, (2, 32), generator=torch.Generator().manual_seed(1))
    save_model(tmp_path / "ours", model, bos_id=0, eos_id=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        expected = model(ids)
        torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-4, rtol=0)
        theirs.save_pretrained(tmp_path / "theirs")
        again = load_model(tmp_path / "theirs")
        torch.testing.assert_close(again(ids), expected, atol=1e-4, rtol=0)
