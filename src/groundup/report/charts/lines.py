"""Lines over a shared horizontal axis, with labels on the grid and, for people with a pointer, values on hover."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from groundup.report.charts.frame import drawing
from groundup.report.html import Child, Html, tag

Point = tuple[float, float]

_MARGIN = 10.0  # percent of the drawing, beside the plot: for the labels of the grid
_TOP, _BOTTOM = 14, 30  # pixels
_UNITS = 1000  # of the plot's own coordinates
_HOVER_POINTS = 240


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its points, thick and coloured where it is the one that counts."""

    points: Sequence[Point]
    accent: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """How values are labelled: `right` on the right end of the grid's lines, `left` (another unit) on the left end."""

    right: Callable[[float], str]
    left: Callable[[float], str] | None = None
    from_zero: bool = False


def lines(
    name: str,
    title: str,
    description: str,
    drawn: Sequence[Line],
    axis: Axis,
    *,
    x_label: Callable[[float], str],
    hover: Callable[[Point], str] | None = None,
    height: int = 300,
) -> Html:
    """The drawing.

    Args:
        drawn: with at least one point in all; the last line lies on top, and is the one that hovering tells about.
        x_label: of a place on the horizontal axis, which begins at 0.
        hover: the text for one of its points.
    """
    x_most = max(x for line in drawn for x, _ in line.points) or 1.0
    values = [y for line in drawn for _, y in line.points]
    rows = ticks(0.0 if axis.from_zero else min(values), max(values), max(2, height // 50))
    low, high = min(rows[0], *values), max(rows[-1], *values)
    span = (high - low) or 1.0
    plot = height - _TOP - _BOTTOM
    left = _MARGIN if axis.left else 0.5
    right = 100 - _MARGIN

    def px(y: float) -> float:
        return _TOP + plot * (1 - (y - low) / span)

    def percent(x: float) -> float:
        return left + (right - left) * x / x_most

    marks: list[Child] = []
    for row in rows:
        marks.append(tag("line", x1=f"{left}%", x2=f"{right}%", y1=px(row), y2=px(row), class_="grid"))
        marks.append(tag("text", axis.right(row), x=f"{right + 2}%", y=px(row) + 4, class_="tick"))
        if axis.left:
            marks.append(tag("text", axis.left(row), x=f"{left - 2}%", y=px(row) + 4, text_anchor="end", class_="tick"))
    for column in ticks(0.0, x_most, 5):
        if column <= x_most:
            place = f"{percent(column):.2f}%"
            anchor = "start" if column == 0 else "middle"
            marks.append(tag("text", x_label(column), x=place, y=height - 8, text_anchor=anchor, class_="tick"))
    paths = [_path(line, x_most, low, span) for line in drawn if line.points]
    marks.append(
        tag(
            "svg",
            paths,
            x=f"{left}%",
            y=_TOP,
            width=f"{right - left}%",
            height=plot,
            viewBox=f"0 0 {_UNITS} {_UNITS}",
            preserveAspectRatio="none",
            overflow="visible",
        )
    )
    last = drawn[-1].points
    if last:
        x, y = last[-1]
        marks.append(tag("circle", cx=f"{percent(x):.2f}%", cy=px(y), r=4, class_="dot"))
    if hover:
        marks.append(tag("line", x1=0, x2=0, y1=_TOP, y2=height - _BOTTOM, class_="hair"))
    points = _hover(last, percent, hover) if hover else None
    return drawing(name, title, description, height, *marks, points=points)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that reach from below `low` to `high` or close below it."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    count = math.floor((high / step) + 1e-9) - first + 1
    return [round((first + index) * step, 12) for index in range(count)]


def _path(line: Line, x_most: float, low: float, span: float) -> Html:
    places = (f"{_UNITS * x / x_most:.1f},{_UNITS * (1 - (y - low) / span):.1f}" for x, y in line.points)
    kind = "line accent" if line.accent else "line"
    return tag("polyline", points=" ".join(places), class_=kind, vector_effect="non-scaling-stroke")


def _hover(points: Sequence[Point], percent: Callable[[float], float], told: Callable[[Point], str]) -> str:
    stride = max(1, math.ceil(len(points) / _HOVER_POINTS))
    return ";".join(f"{percent(point[0]):.2f},{told(point)}" for point in points[::stride])
