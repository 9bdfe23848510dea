"""Fixtures of the inference tests."""

from __future__ import annotations

import pytest

from groundup.inference.runner import NativeRunner, SequenceStep


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of tokens of each forward pass."""
    counts: list[int] = []
    forward = NativeRunner.forward

    def counted(self: NativeRunner, steps: list[SequenceStep]) -> object:
        counts.append(sum(len(step.ids) - step.cache.length for step in steps))
        return forward(self, steps)

    monkeypatch.setattr(NativeRunner, "forward", counted)
    return counts
