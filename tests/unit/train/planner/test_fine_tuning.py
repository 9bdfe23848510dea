"""Plans of fine-tuning, from twenty examples to a hundred thousand, from 3M parameters to 1B."""

from __future__ import annotations

import pytest

from groundup.model import ModelConfig
from groundup.optim import OptimizerConfig
from groundup.train.planner.fine_tuning import (
    adapter_rates,
    affordable_epochs,
    classifier_epochs,
    fine_tuning_plan,
    fine_tuning_rates,
    measured_rows,
    should_compile,
    step_rows,
)

SMALL = ModelConfig("qwen3", 192, 3, 3, 3, 64, 512, 7232, 512)
LARGE = ModelConfig("llama", 2048, 16, 32, 8, 64, 8192, 128_256, 2048)


@pytest.mark.parametrize("rows", [1, 2, 7, 60, 900, 40_000])
def test_the_steps_cover_the_given_number_of_epochs(rows: int) -> None:
    """With the batch size for many examples, few examples would be trained in two steps."""
    step = step_rows(rows, 3.0, 512)
    plan = fine_tuning_plan(SMALL, OptimizerConfig(), rows_per_epoch=rows, epochs=3.0, step=step)
    assert plan.epochs == pytest.approx(3.0, rel=0.03, abs=0.5 / rows)
    assert plan.total_steps >= min(3 * rows, 50)
    micro, accumulated = step_rows(rows, 3.0, 512, adapted=True)
    assert 3 * rows / (micro * accumulated) >= min(3 * rows, 200)


def test_learning_rates_fall_with_the_hidden_size() -> None:
    """AdamW at 1e-3 is fine for 4M parameters, but destroys a 1B model in a hundred steps."""
    small, large = fine_tuning_rates(SMALL.dim, 0.3), fine_tuning_rates(LARGE.dim, 0.3)
    assert small.head_lr == pytest.approx(0.3 * OptimizerConfig().head_lr)
    for name in ("matrix_lr", "embedding_lr", "head_lr", "vector_lr"):
        assert getattr(large, name) == pytest.approx(getattr(small, name) / 8)
    assert large.head_lr < 2e-4


def test_minutes_only_shorten_a_run() -> None:
    assert affordable_epochs(60, 1000, 10_000, 3.0) == 3.0
    assert 0 < affordable_epochs(10, 1000, 10_000, 3.0) < 1.0
    assert affordable_epochs(-5, 1000, 10_000, 3.0) == 0.0


def test_short_runs_are_not_compiled() -> None:
    """Half a minute of compilation is too long for ten seconds of training."""
    assert not should_compile(SMALL, 200_000, 1e12)
    assert should_compile(SMALL, 20_000_000, 1e12)
    assert should_compile(LARGE, 200_000, 1e12)


def test_speed_is_measured_on_steps_of_a_second() -> None:
    """Seven real steps of a 135M model on one core took three of the given five minutes."""
    large = ModelConfig("llama", 576, 30, 9, 3, 64, 1536, 49_152, 512)
    assert measured_rows(large, 2e11, 16) == 1
    assert 1 < measured_rows(large, 2e13, 64) < 64
    assert measured_rows(SMALL, 2e12, 4) == 4


def test_adapters_get_a_multiple_of_the_full_fine_tuning_rate() -> None:
    usual = adapter_rates(SMALL.dim)
    assert adapter_rates(LARGE.dim).matrix_lr < usual.matrix_lr == pytest.approx(0.006)
    assert adapter_rates(SMALL.dim, 0.6).matrix_lr == pytest.approx(2 * usual.matrix_lr)
    assert usual.matrices == "adamw"


@pytest.mark.parametrize("n_texts", [2, 500, 10_000, 100_000])
def test_few_texts_get_more_epochs(n_texts: int) -> None:
    assert classifier_epochs(n_texts) >= classifier_epochs(2 * n_texts) >= 1
