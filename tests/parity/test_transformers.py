"""Our directories in transformers, and theirs here: the same logits, or a user's model is lost in translation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.checkpoint import load_model, save_model
from groundup.checkpoint.families import LAYOUTS
from groundup.errors import FormatError
from groundup.model import Family, ModelConfig, Transformer

transformers = pytest.importorskip("transformers", reason="the parity tests need transformers: pip install '.[dev]'")

SHAPES = [(family, tied) for family in LAYOUTS for tied in (True, False)]


def _config(family: Family, tied: bool) -> ModelConfig:
    kv_heads = 4 if family == "gpt2" else 2
    head_dim = 16 if family == "gpt2" else 24  # where a family allows it, heads that do not add up to dim
    return ModelConfig(family, 64, 3, 4, kv_heads, head_dim, 160, 512, 32, 5_000.0, 1e-5, tied)


def _random(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_transformers_loads_ours_and_gives_it_back(family: Family, tied: bool, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_a_model_made_by_transformers_loads_here(family: Family, tied: bool, tmp_path: Path) -> None:
    sizes = {"vocab_size": 300, "tie_word_embeddings": tied}
    if family == "gpt2":
        config = transformers.GPT2Config(n_embd=48, n_layer=2, n_head=3, n_positions=40, **sizes)
    else:
        kind = transformers.LlamaConfig if family == "llama" else transformers.Qwen3Config
        config = kind(
            hidden_size=48,
            intermediate_size=100,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=40,
            **sizes,
        )
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    _random(theirs, 2)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)


def test_a_variant_that_means_something_else_is_refused(tmp_path: Path) -> None:
    # Loading it anyway would give a model that runs and answers nonsense.
    config = transformers.LlamaConfig(
        hidden_size=48,
        intermediate_size=100,
        num_hidden_layers=1,
        num_attention_heads=3,
        vocab_size=300,
        attention_bias=True,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(FormatError, match="attention_bias"):
        load_model(tmp_path)


def test_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(FormatError, match="pickle"):
        load_model(tmp_path)
