"""The losses of a training run, from its `metrics.jsonl`, smoothed and thinned to what a page can show."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.core.facts import Facts
from groundup.report.charts.lines import Point

_SHOWN_POINTS = 500
_SMOOTHED_SHARE = 0.02  # of the steps, on either side


@dataclass(frozen=True, slots=True)
class Curve:
    """A training run, step by step.

    Attributes:
        steps: the lines of the log, in order; lines that are damaged are left out.
    """

    steps: Sequence[Facts]

    @property
    def tokens(self) -> float:
        """Tokens seen at the end."""
        return self.steps[-1].number("tokens_seen") or 0.0

    @property
    def seconds(self) -> float:
        """Time in steps, without pauses between them."""
        return sum(step.number("seconds") or 0.0 for step in self.steps)

    def points(self, key: str) -> list[Point]:
        """(tokens seen, value) of each step where both are finite numbers; steps, where tokens are not counted."""
        found = []
        for index, step in enumerate(self.steps, 1):
            value = step.number(key)
            place = step.number("tokens_seen")
            if value is not None:
                found.append((place if place is not None else float(index), value))
        return found


def read_curve(path: Path) -> Curve | None:
    """Read a log; None where there is none, or no line of it can be read."""
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
    """A running mean that looks as far ahead as back, so that it does not lag behind a falling curve.

    At the beginning the window shrinks with the distance from it; at the end only its part ahead does, so that the
    last value is a mean, too.
    """
    reach = round(_SMOOTHED_SHARE * len(points))
    sums = [0.0, *itertools.accumulate(y for _, y in points)]
    smoothed = []
    for index, (x, _) in enumerate(points):
        back = min(reach, index)
        first, end = index - back, min(len(points), index + back + 1)
        smoothed.append((x, (sums[end] - sums[first]) / (end - first)))
    return smoothed


def thin(points: Sequence[Point]) -> list[Point]:
    """Means of neighbours, so that at most 500 points are left; the last one stays what it is."""
    stride = math.ceil(len(points) / _SHOWN_POINTS)
    if stride <= 1:
        return list(points)
    groups = (points[start : start + stride] for start in range(0, len(points), stride))
    thinned = [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
    return [*thinned[:-1], points[-1]]
