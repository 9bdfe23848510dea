"""The planner: counts that match what is built, and plans that fit their budget."""

from __future__ import annotations

import pytest
import torch

from groundup.errors import ConfigError
from groundup.model import FAMILIES, Family, ModelConfig, Transformer
from groundup.optim import OptimizerConfig
from groundup.planner import Budget, Plan, flops_per_token, parameter_count, plan_run, product_parameters

GPT2_SMALL = ModelConfig("gpt2", 768, 12, 12, 12, 64, 3072, 50_257, 1024)


def test_gpt2_small_has_its_published_number_of_parameters() -> None:
    assert parameter_count(GPT2_SMALL) == 124_439_808


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_model_that_is_built(family: Family, tied: bool) -> None:
    kv_heads = 4 if family == "gpt2" else 2
    config = ModelConfig(family, 64, 3, 4, kv_heads, 16, 160, 512, 32, tie_embeddings=tied)
    with torch.device("meta"):
        model = Transformer(config)
    assert parameter_count(config) == sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n)
    assert product_parameters(config) == matrices + config.vocab_size * config.dim


def _plan(budget: Budget, speed: float = 250e9, corpus: int = 8_000_000, **shape: object) -> Plan:
    return plan_run(
        budget,
        vocab_size=8192,
        given_shape={"family": "qwen3", "context_length": 512} | shape,
        corpus_tokens=corpus,
        product_flops=2 * speed,
        measure=lambda config, rows: speed / flops_per_token(config),
        optimizer=OptimizerConfig(),
    )


@pytest.mark.parametrize("minutes", [0.5, 5.0, 60.0])
def test_minutes_are_kept_at_the_measured_speed(minutes: float) -> None:
    plan = _plan(Budget(minutes=minutes), corpus=10**9)
    assert plan.tokens_per_second is not None
    assert 0.8 * minutes < plan.total_tokens / plan.tokens_per_second / 60 <= 1.01 * minutes


def test_more_time_buys_a_deeper_model_and_larger_steps() -> None:
    short, long = _plan(Budget(minutes=2)), _plan(Budget(minutes=2000), corpus=10**11)
    assert short.model.n_layers < long.model.n_layers
    assert short.global_batch_tokens < long.global_batch_tokens


def test_a_small_corpus_is_not_repeated_for_ever() -> None:
    plan = _plan(Budget(minutes=60), corpus=100_000)
    assert plan.epochs <= 4.1


def test_what_the_user_decides_stays() -> None:
    plan = _plan(Budget(tokens=500_000), n_layers=3, dim=96, n_heads=4, n_kv_heads=2, tie_embeddings=True)
    model = plan.model
    assert (model.n_layers, model.dim, model.n_heads, model.n_kv_heads) == (3, 96, 4, 2)
    assert model.head_dim == 24
    assert model.tie_embeddings


def test_a_plan_survives_json() -> None:
    plan = _plan(Budget(depth=3))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest


@pytest.mark.parametrize("dials", [{}, {"minutes": 1.0, "tokens": 5}])
def test_no_dial_or_two_are_refused(dials: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        Budget(**dials)  # type: ignore[arg-type]
