"""Bootstrap intervals: their width follows theory, and the same seed gives the same interval."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.evaluation.metrics import mean
from groundup.evaluation.stats import bootstrap, paired_difference, ratio_interval


def test_the_width_equals_the_normal_approximation():
    """For the mean of many documents, the bootstrap must agree with mean ± 1.96 standard errors."""
    values = np.random.default_rng(0).exponential(2.0, size=2000)
    interval = ratio_interval(values, np.ones_like(values))
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_intervals_have_about_the_nominal_coverage():
    """200 corpora of 60 documents with a known true ratio: 95 % coverage within three standard deviations."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        sizes = generator.integers(100, 5000, size=60).astype(float)
        nats = 1.5 * sizes * generator.gamma(20, 1 / 20, size=60)
        interval = ratio_interval(nats, sizes, resamples=400)
        covered += interval.low <= 1.5 <= interval.high
    assert 0.89 <= covered / 200 <= 0.995


def test_documents_are_weighted_by_their_bytes():
    """A mean of per-document scores would give a tweet the weight of a book."""
    assert ratio_interval([10.0, 1000.0], [10.0, 500.0]).estimate == pytest.approx(1010 / 510)


def test_pairing_detects_what_separate_intervals_hide():
    """Documents differ much more than two models on the same document."""
    generator = np.random.default_rng(2)
    sizes = np.full(300, 1000.0)
    a = generator.normal(1000, 400, size=300)
    b = a + 10 + generator.normal(0, 5, size=300)
    one, other = ratio_interval(a, sizes), ratio_interval(b, sizes)
    assert one.high > other.low
    difference = paired_difference(b, a, sizes)
    assert difference.excludes_zero
    assert difference.low < 0.010 < difference.high


def test_noise_is_not_significant():
    generator = np.random.default_rng(3)
    a, b = generator.normal(1000, 30, size=(2, 200))
    assert not paired_difference(a, b, np.full(200, 1000.0)).excludes_zero


def test_the_result_depends_on_the_seed_and_not_on_chunks(monkeypatch: pytest.MonkeyPatch):
    """The resamples of many documents are computed in chunks, which must not change the result."""
    values, sizes = np.random.default_rng(4).random((2, 50)) + 0.5
    first = ratio_interval(values, sizes, seed=9)
    assert ratio_interval(values, sizes, seed=10).low != pytest.approx(first.low, rel=1e-6)
    monkeypatch.setattr("groundup.evaluation.stats._MAX_CELLS", 50 * 7)
    again = ratio_interval(values, sizes, seed=9)
    assert (again.low, again.high) == pytest.approx((first.low, first.high), rel=1e-12)  # Sums in another order.


def test_one_document_has_an_infinite_interval():
    """An interval of width zero would claim certainty."""
    interval = ratio_interval([3.0], [2.0])
    assert (interval.low, interval.high) == (-np.inf, np.inf)


def test_equal_documents_can_be_counted():
    """A confusion matrix of 20,000 texts has a few cells, whose counts give the interval of the texts."""
    right = np.repeat([1.0, 0.0], [140, 60])
    one_by_one = ratio_interval(right, np.ones(200), seed=3)
    together = bootstrap(0.7, lambda often_RU: often_RU[:, 0] / often_RU.sum(1), [140, 60], seed=3)
    assert (together.low, together.high) == pytest.approx((one_by_one.low, one_by_one.high))


def test_all_intervals_use_the_same_resamples():
    """Different resampling for two tables gave two intervals for the same answers."""
    right = np.random.default_rng(5).random(150) < 0.6
    shares = [ratio_interval(right, np.ones(150), seed=1), mean("accuracy", right).interval(seed=1)]
    assert shares[0].low == pytest.approx(shares[1].low, rel=1e-12)
    assert shares[0].high == pytest.approx(shares[1].high, rel=1e-12)


def test_a_score_of_0_or_100_has_an_interval() -> None:
    """The bootstrap resamples equal values, so it would claim certainty after three items."""
    found = mean("accuracy", [100, 100, 100]).interval()
    assert (found.estimate, found.high) == (100, 100)
    assert found.low == pytest.approx(43.85, abs=0.01)  # statsmodels: proportion_confint(3, 3, method="wilson")
    zero = mean("accuracy", [0.0] * 200).interval()
    assert (zero.low, zero.high) == pytest.approx((0, 1.8846), abs=1e-3)
