"""The losses of a training run, from its `metrics.jsonl`, smoothed and thinned to what a page can show."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.report.charts.lines import Point
from groundup.report.facts import Facts

_SHOWN_POINTS = 500
_SMOOTHED_SHARE = 0.03  # of the steps: about what the exponential mean remembers


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
    """An exponential mean without the bias of its beginning (Kingma and Ba 2015, arXiv:1412.6980, section 3)."""
    keep = math.exp(-1 / max(1.0, _SMOOTHED_SHARE * len(points)))
    mean, weight, smoothed = 0.0, 0.0, []
    for x, y in points:
        mean = keep * mean + (1 - keep) * y
        weight = keep * weight + (1 - keep)
        smoothed.append((x, mean / weight))
    return smoothed


def thin(points: Sequence[Point]) -> list[Point]:
    """Means of neighbours, so that at most 500 points are left; the last one stays what it is."""
    stride = math.ceil(len(points) / _SHOWN_POINTS)
    if stride <= 1:
        return list(points)
    groups = (points[start : start + stride] for start in range(0, len(points), stride))
    thinned = [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
    return [*thinned[:-1], points[-1]]
