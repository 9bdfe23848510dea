"""Training metrics from `metrics.jsonl`, and functions that smooth and downsample them for a chart."""

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
_SMOOTHING_FRACTION = 0.02  # The window extends over this fraction of the steps on each side.


@dataclass(frozen=True, slots=True)
class Curve:
    """The metrics of a training run.

    Attributes:
        steps: Rows of `metrics.jsonl` in order. Damaged lines are omitted.
    """

    steps: Sequence[Facts]

    @property
    def tokens(self) -> float:
        """Number of tokens seen at the end of training."""
        return self.steps[-1].number("tokens_seen") or 0.0

    @property
    def seconds(self) -> float:
        """Total time of all steps in seconds, excluding the time between steps."""
        return sum(step.number("seconds") or 0.0 for step in self.steps)

    def points(self, key: str) -> list[Point]:
        """Return a point (tokens seen, value) for each step that has a finite value of the metric `key`.

        If the log does not contain the tokens seen, the point is (step, value).
        """
        points = []
        for index, step in enumerate(self.steps, 1):
            value = step.number(key)
            tokens = step.number("tokens_seen")
            if value is not None:
                points.append((tokens if tokens is not None else float(index), value))
        return points


def read_curve(path: Path) -> Curve | None:
    """Read `metrics.jsonl`. Return None if the file is missing or does not contain a readable line."""
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
    """Return the centered moving average of the points.

    A centered average does not lag behind a falling curve. Near the start, the window shrinks on both sides. Near the
    end, only the right half of the window shrinks, so that the last value is also an average.
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
    """Downsample a curve to at most 500 points by averaging adjacent points. The last point is unchanged."""
    stride = math.ceil(len(points) / _MAX_POINTS)
    if stride <= 1:
        return list(points)
    groups = (points[start : start + stride] for start in range(0, len(points), stride))
    thinned = [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
    return [*thinned[:-1], points[-1]]
