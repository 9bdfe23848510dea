"""Sampling: each filter on a known distribution, and the frequencies of samples."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.core.errors import ConfigError, FormatError
from groundup.inference.sampling import Sampling, distribution, draw, penalize, sample
from groundup.kernels.native_library import native_library
from groundup.kernels.native_sampling import log_sum_exp, sample_natively

PROBS = [0.4, 0.3, 0.15, 0.1, 0.05]
NOTHING = torch.empty(0, dtype=torch.int64)


def logits(probs: list[float] = PROBS) -> torch.Tensor:
    return torch.tensor(probs).log()


def probs_after(**options: float) -> list[float]:
    return [round(p, 6) for p in distribution(logits(), Sampling(**options)).tolist()]


def test_defaults_do_not_change_the_distribution():
    assert probs_after() == PROBS


def test_top_k_keeps_k_and_renormalizes():
    assert probs_after(top_k=2) == [round(0.4 / 0.7, 6), round(0.3 / 0.7, 6), 0, 0, 0]


def test_top_p_keeps_the_token_that_crosses_p():
    """If it were dropped, the kept probability is less than p, and zero if the first token alone exceeds p."""
    assert probs_after(top_p=0.75) == [round(p / 0.85, 6) for p in (0.4, 0.3, 0.15)] + [0, 0]
    assert probs_after(top_p=0.01) == [1, 0, 0, 0, 0]


def test_min_p_is_relative_to_the_most_likely_token():
    assert probs_after(min_p=0.3) == [round(p / 0.85, 6) for p in (0.4, 0.3, 0.15)] + [0, 0]


def test_temperature_is_applied_before_top_p():
    """Temperature 0.5 squares the probabilities: 0.16, 0.09, ... of 0.285, so the first two sum to 0.877."""
    assert probs_after(temperature=0.5, top_p=0.8)[2:] == [0, 0, 0]
    assert probs_after(temperature=1.0, top_p=0.8)[2] > 0


def test_a_tiny_temperature_does_not_overflow():
    """Logits / 1e-30 are infinite, and inf - inf in the softmax would be NaN."""
    assert probs_after(temperature=1e-30) == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.8, "temperature": 1.5}])
def test_draws_follow_the_distribution(options: dict[str, float]):
    """Pearson's chi-square of 20,000 draws; the bound is the 99.9 % quantile for 4 degrees of freedom."""
    expected = distribution(logits(), Sampling(**options))
    generator = torch.Generator().manual_seed(7)
    n = 20_000
    counts = torch.bincount(
        torch.tensor([draw(expected, float(torch.rand((), generator=generator))) for _ in range(n)]), minlength=5
    )
    possible = expected > 0
    assert counts[~possible].sum() == 0, "a filtered token was drawn"
    chi_square = ((counts - n * expected)[possible] ** 2 / (n * expected[possible])).sum()
    assert chi_square < 18.47


def test_greedy_uses_no_random_numbers():
    """Otherwise a greedy step would change later samples."""
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert sample(logits(), Sampling(temperature=0), NOTHING, NOTHING, generator) == 0
    assert torch.equal(before, generator.get_state())


def test_penalties():
    """Repetition counts prompt and output; frequency and presence count the output only, as in OpenAI's API."""
    given = torch.tensor([2.0, -2.0, 1.0, 1.0])
    options = Sampling(repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25)
    penalized = penalize(given, options, torch.tensor([0, 1]), torch.tensor([2, 2]))
    assert penalized.tolist() == [1.0, -4.0, 0.5 - 2 * 0.5 - 0.25, 1.0]
    assert given.tolist() == [2.0, -2.0, 1.0, 1.0], "the model's logits are still needed for logprobs"


def test_minus_infinity_excludes_a_token():
    """Grammars mask tokens with -inf; only NaN and +inf are errors."""
    masked = torch.tensor([-math.inf, 0.0, -math.inf])
    assert sample(masked, Sampling(), NOTHING, NOTHING, torch.Generator().manual_seed(0)) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_errors(bad: float):
    with pytest.raises(FormatError, match="not finite"):
        sample(torch.tensor([0.0, bad]), Sampling(), NOTHING, NOTHING, torch.Generator())


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"frequency_penalty": math.inf},
        {"presence_penalty": 101.0},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": -4},
    ],
)
def test_settings_out_of_range_are_errors(options: dict[str, float]):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        Sampling(**options)


@pytest.mark.parametrize("penalty", [5e-324, 1e-30, 1e30])
def test_extreme_penalties_are_not_errors(penalty: float):
    given = torch.tensor([3.0, -3.0, 1.0, -math.inf])
    for temperature in (0, 1.0):
        options = Sampling(temperature=temperature, repetition_penalty=penalty)
        assert sample(given, options, [0, 1, 3], [], torch.Generator().manual_seed(0)) in (0, 2)


@pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
@pytest.mark.parametrize("size", [1, 5, 16, 1000, 5000])
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_the_kernel_samples_from_the_same_distribution(size: int, spread: float):
    """The tokens must be those of inverse transform sampling, except for points at the border of two tokens."""
    generator = torch.Generator().manual_seed(size)
    for options in (
        {},
        {"temperature": 0.7},
        {"temperature": 1e-30},
        {"top_k": 3},
        {"top_p": 0.9},
        {"top_p": 0.3, "temperature": 2.0},
        {"min_p": 0.1},
        {"min_p": 0.01, "top_p": 0.8},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.02, "temperature": 1.3},
    ):
        logits_V = torch.randn(size, generator=generator) * spread
        logits_V[size // 2 + 1 :: 3] = -math.inf
        logits_V[size // 4 :: 5] = logits_V[0]  # equally likely tokens
        cumulative_V = distribution(logits_V, Sampling(**options)).cumsum(-1)
        usual = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0.0}
        for uniform in torch.rand(40, generator=generator, dtype=torch.float64).tolist():
            token = sample_natively(logits_V, uniform=uniform, **usual | options)
            assert token is not None
            before = float(cumulative_V[token - 1]) if token else 0.0
            assert before < float(cumulative_V[token]), "the token has probability 0"
            assert before - 1e-5 <= uniform <= float(cumulative_V[token]) + 1e-5
    assert log_sum_exp(logits_V) == pytest.approx(float(logits_V.double().logsumexp(-1)), abs=1e-5)
