"""Training metrics from `metrics.jsonl`, smoothed and thinned for a chart."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.core.facts import Facts
from groundup.report.charts.lines import Point

_MAX_POINTS = 500
_SMOOTHING_FRACTION = 0.02  # of the steps, on each side


@dataclass(frozen=True, slots=True)
class Curve:
    """The metrics of a training run.

    Attributes:
        steps: Rows of the log in order, without damaged lines.
    """

    steps: Sequence[Facts]

    @property
    def tokens(self) -> float:
        """Number of tokens seen at the end."""
        return self.steps[-1].number("tokens_seen") or 0.0

    @property
    def seconds(self) -> float:
        """Total time of all steps, without pauses between them."""
        return sum(step.number("seconds") or 0.0 for step in self.steps)

    def points(self, key: str) -> list[Point]:
        """Return (tokens seen, value) of each step with a finite value; x is the step if tokens are not logged."""
        points = []
        for index, step in enumerate(self.steps, 1):
            value = step.number(key)
            tokens = step.number("tokens_seen")
            if value is not None:
                points.append((tokens if tokens is not None else float(index), value))
        return points


def read_curve(path: Path) -> Curve | None:
    """Read a log; None if it is missing or has no readable line."""
    if not path.is_file():
        return None
    steps = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            step = json.loads(line)
        except ValueError:
            continue
        if isinstance(step, dict):
            steps.append(Facts(step))
    return Curve(steps) if steps else None


def smooth(points: Sequence[Point]) -> list[Point]:
    """Return the centered moving average, which does not lag behind a falling curve.

    The window is symmetric, except near the end, where only its right half shrinks, so that the last value is an
    average, too.
    """
    radius = round(_SMOOTHING_FRACTION * len(points))
    sums = [0.0, *itertools.accumulate(y for _, y in points)]
    smoothed = []
    for index, (x, _) in enumerate(points):
        back = min(radius, index)
        first, end = index - back, min(len(points), index + back + 1)
        smoothed.append((x, (sums[end] - sums[first]) / (end - first)))
    return smoothed


def thin(points: Sequence[Point]) -> list[Point]:
    """Average adjacent points until at most 500 remain. The last point is unchanged."""
    stride = math.ceil(len(points) / _MAX_POINTS)
    if stride <= 1:
        return list(points)
    groups = (points[start : start + stride] for start in range(0, len(points), stride))
    thinned = [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
    return [*thinned[:-1], points[-1]]
