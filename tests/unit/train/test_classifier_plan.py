"""Decisions on the validation set of a classifier."""

from __future__ import annotations

import pytest

from groundup.train.classifier.plan import significantly_worse


@pytest.mark.parametrize(
    ("before", "after", "n_texts", "worse"),
    [
        (0.1, 0.1, 100, False),
        (0.1, 0.18, 100, False),
        (0.3, 0.1, 100, False),
        (0.1, 0.21, 100, True),
        (0.1, 0.18, 1000, True),
        (0.0, 0.1, 100, True),
    ],
)
def test_significantly_worse_means_two_standard_errors(before: float, after: float, n_texts: int, worse: bool) -> None:
    assert significantly_worse(before, after, n_texts) == worse
