"""The round-trip check accepts equal models, and rejects typical damage of exports."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.core.console import Console
from groundup.core.errors import FormatError
from groundup.evaluation.verification.agreement import Agreement
from groundup.evaluation.verification.peers import Peer, PeerError
from groundup.evaluation.verification.round_trip import (
    Check,
    GroundupRunner,
    Verdict,
    require_no_problems,
    round_trip_inputs,
    run_checks,
)
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer, train_tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def sharp(tiny_model: Callable[..., Transformer], tokenizer: Tokenizer) -> Transformer:
    """A model with peaked predictions, in which damage is visible."""
    model = tiny_model(tokenizer.vocab_size, context_length=256)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


def gate(
    ours: Transformer, other: Transformer, tokenizer: Tokenizer, limits: str, theirs: Tokenizer | None = None
) -> Verdict:
    checks = [
        Check(GroundupRunner("ours", ours, tokenizer), GroundupRunner("theirs", other, theirs or tokenizer), limits)
    ]
    return run_checks(checks, round_trip_inputs(tokenizer, ours.config.context_length), console=QUIET, label="test")


def changed(model: Transformer, change: Callable[[Transformer], None]) -> Transformer:
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return other


def swap_heads(model: Transformer) -> None:
    weight = model.model.layers[0].self_attn.q_proj.weight
    weight.copy_(weight.unflatten(0, (4, 2, 4)).transpose(1, 2).flatten(0, 2))


def shift_norm(model: Transformer) -> None:
    model.model.norm.weight.add_(torch.linspace(0, 4, len(model.model.norm.weight)))


def shift_vocabulary(model: Transformer) -> None:
    model.lm_head.weight.copy_(model.lm_head.weight.roll(1, 0))


def lose_a_layer(model: Transformer) -> None:
    model.model.layers[1].mlp.down_proj.weight.zero_()


def spoil(model: Transformer) -> None:
    model.model.layers[0].mlp.up_proj.weight[3, 5] = math.nan


def test_the_same_model_passes_the_narrowest_limits(sharp: Transformer, tokenizer: Tokenizer) -> None:
    verdict = gate(sharp, copy.deepcopy(sharp), tokenizer, "exact")
    assert verdict.problems == ()
    (found,) = verdict.agreements
    assert found.positions > 3000 and found.top1 == 1.0 and found.kl == 0.0 and found.ids_equal == found.ids_total > 50
    assert len(found.greedy) == 5 and found.perplexity == found.reference_perplexity


@pytest.mark.parametrize("damage", [swap_heads, shift_norm, shift_vocabulary, lose_a_layer, spoil])
@pytest.mark.parametrize("limits", ["exact", "f16", "q8_0"])
def test_damaged_weights_fail(
    damage: Callable[[Transformer], None], limits: str, sharp: Transformer, tokenizer: Tokenizer
) -> None:
    verdict = gate(sharp, changed(sharp, damage), tokenizer, limits)
    with pytest.raises(FormatError, match="The result was deleted"):
        require_no_problems(verdict.problems, "model.gguf")
    assert verdict.to_json()["passed"] is False


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_passes_only_the_limits_of_its_type(
    dtype: torch.dtype, sharp: Transformer, tokenizer: Tokenizer
) -> None:
    rounded = changed(sharp, lambda model: [p.copy_(p.to(dtype).float()) for p in model.parameters()] and None)
    assert gate(sharp, rounded, tokenizer, {torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]).problems == ()
    if dtype == torch.bfloat16:
        assert gate(sharp, rounded, tokenizer, "exact").problems


def test_another_tokenizer_is_detected(sharp: Transformer, tokenizer: Tokenizer, real_documents: list[str]) -> None:
    other = train_tokenizer(real_documents[:40], 512)
    verdict = gate(sharp, sharp, tokenizer, "exact", theirs=other)
    assert any("ids differ" in problem for problem in verdict.problems)


def test_agreement_of_two_positions() -> None:
    """Computed by hand: two positions, one of them with another choice at a gap of ln 2."""
    found = Agreement("a", "b")
    reference_TV = torch.tensor([[2.0, 1.0, 0.5], [1.0, 0.5, 0.25]]).log()
    other_TV = torch.tensor([[2.0, 1.0, 0.5, 9.0], [0.5, 1.0, 0.25, 9.0]]).log()  # One matrix is padded.
    found.add_logits(reference_TV, other_TV, [0, 1])
    assert (found.positions, found.agreed, found.scored) == (2, 1, 1)
    assert found.worst_gap == pytest.approx(math.log(2))
    p, q = (1 / 1.75, 0.5 / 1.75, 0.25 / 1.75), (0.5 / 1.75, 1 / 1.75, 0.25 / 1.75)
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert found.kl == pytest.approx(divergence / 2, rel=1e-5)
    assert found.perplexity == pytest.approx(3.5)  # Both give the second token a probability of 1 / 3.5.


def test_the_error_of_an_engine_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="pip install '.[dev]'")
    (tmp_path / "config.json").write_text('{"model_type": "from-the-future"}')
    with pytest.raises(PeerError, match="transformers on") as raised:
        Peer("transformers", tmp_path, tokens=64)
    assert "from-the-future" in raised.value.value or "tokenizer" in raised.value.value.lower()


def test_transformers_reads_a_written_model(sharp: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="pip install '.[dev]'")
    save_model(tmp_path, sharp, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(tmp_path)
    tried = round_trip_inputs(tokenizer, 256)
    with Peer("transformers", tmp_path, tokens=tried.longest) as peer:
        checks = [Check(GroundupRunner("ours", sharp, tokenizer), peer, "exact")]
        verdict = run_checks(checks, tried, console=QUIET, label="test")
    assert verdict.problems == ()
