"""groundup's model directories in transformers and vice versa: equal logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from family_shapes import small
from groundup.core.types import IGNORE_INDEX
from groundup.hub import load_model, save_model
from groundup.hub.families import weight_table
from groundup.model import FAMILIES, ModelConfig, Transformer
from groundup.model.weight_map import HEAD

transformers = pytest.importorskip("transformers", reason="the parity tests need transformers: pip install '.[dev]'")

SHAPES = [(family, tied) for family in FAMILIES for tied in (True, False)]


def _config(family: str, tied: bool) -> ModelConfig:
    # Heads whose sizes do not add up to dim, if the family allows it.
    head_dim = 16 if FAMILIES[family].multi_head_only else 24
    return small(family, head_dim=head_dim, vocab_size=512, tie_embeddings=tied)


def _random(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_a_round_trip_through_transformers(family: str, tied: bool, tmp_path: Path) -> None:
    model = Transformer(_config(family, tied))
    _random(model, 0)
    ids = torch.randint(0, 512, (2, 32), generator=torch.Generator().manual_seed(1))
    save_model(tmp_path / "ours", model, bos_id=0, eos_id=0)
    # Eager attention: transformers 4.57 omits Gemma 2's soft-capping in other implementations.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    with torch.no_grad():
        expected = model(ids)
        torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-4, rtol=0)
        theirs.save_pretrained(tmp_path / "theirs")
        again = load_model(tmp_path / "theirs")
        torch.testing.assert_close(again(ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_and_greedy_texts_equal_transformers(family: str, tmp_path: Path) -> None:
    """Equal logits do not reveal a wrong backward pass, or a cache that ignores a window."""
    model = Transformer(_config(family, tied=False))
    _random(model, 2)
    ids = torch.randint(0, 512, (2, 24), generator=torch.Generator().manual_seed(3))
    save_model(tmp_path, model, bos_id=0, eos_id=511)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").train()
    theirs(ids, labels=ids).loss.backward()
    labels = torch.cat([ids[:, 1:], torch.full((2, 1), IGNORE_INDEX)], dim=1)
    (model(ids, labels_BT=labels) / (2 * 23)).backward()
    expected, ours = dict(theirs.named_parameters()), dict(model.named_parameters())
    for weight in weight_table(model.config):
        # Since release 5, transformers renames each head when it loads and saves.
        gradient = expected.pop(HEAD if HEAD in weight.names and HEAD in expected else weight.file_name).grad
        assert gradient.abs().max() > 0
        found = weight.write(lambda name: ours[name].grad)
        torch.testing.assert_close(found, gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-3)
    assert not expected
    model.eval()
    with torch.no_grad():
        written = theirs.eval().generate(ids[:1, :12], max_new_tokens=16, do_sample=False, eos_token_id=None)[0]
        cache, ahead = model.new_cache(1, 32), ids[:1, :12]
        again = ahead[0].tolist()
        while len(again) < 28:
            ahead = model(ahead, cache=cache)[:, -1:].argmax(-1)
            again.append(int(ahead))
    assert again == written.tolist()
