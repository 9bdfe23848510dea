"""Lines over a shared horizontal axis, with labels on the grid and, for people with a pointer, values on hover."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from groundup.report.charts.frame import drawing
from groundup.report.html import Child, Html, tag

Point = tuple[float, float]

_MARGIN = 10.0  # percent of the drawing, beside the plot: for the labels of the grid
_TOP, _BOTTOM = 14, 30  # pixels
_UNITS = 1000  # of the plot's own coordinates
_HOVER_POINTS = 240


@dataclass(frozen=True, slots=True)
class ChartLine:
    """A line: its points, thick and coloured where it is the one that counts."""

    points: Sequence[Point]
    accent: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """How values are labelled: `right` on the right end of the grid's lines, `left` (another unit) on the left end."""

    right: Callable[[float], str]
    left: Callable[[float], str] | None = None
    from_zero: bool = False


def draw_line_chart(
    name: str,
    title: str,
    description: str,
    drawn: Sequence[ChartLine],
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
    plot = _Plot.of(drawn, axis, height)
    marks: list[Child] = [*_grid(plot, axis, x_label)]
    marks.append(
        tag(
            "svg",
            [_path(line, plot) for line in drawn if line.points],
            x=f"{plot.left}%",
            y=_TOP,
            width=f"{plot.right - plot.left}%",
            height=height - _TOP - _BOTTOM,
            viewBox=f"0 0 {_UNITS} {_UNITS}",
            preserveAspectRatio="none",
            overflow="visible",
        )
    )
    last = drawn[-1].points
    if last:
        x, y = last[-1]
        marks.append(tag("circle", cx=f"{plot.percent(x):.2f}%", cy=plot.pixels(y), r=4, class_="dot"))
    if hover:
        marks.append(tag("line", x1=0, x2=0, y1=_TOP, y2=height - _BOTTOM, class_="hair"))
    points = _hover(last, plot.percent, hover) if hover else None
    return drawing(name, title, description, height, *marks, points=points)


@dataclass(frozen=True, slots=True)
class _Plot:
    """The mapping of values to places of the drawing.

    Attributes:
        x_max: the right end of the horizontal axis, which begins at 0.
        rows: the values of the horizontal grid lines.
        low, span: the least value on the vertical axis, and its length.
        left, right: ends of the plot, in percent of the drawing.
    """

    x_max: float
    rows: Sequence[float]
    low: float
    span: float
    left: float
    right: float
    height: int

    @classmethod
    def of(cls, drawn: Sequence[ChartLine], axis: Axis, height: int) -> _Plot:
        x_max = max(x for line in drawn for x, _ in line.points) or 1.0
        values = [y for line in drawn for _, y in line.points]
        rows = ticks(0.0 if axis.from_zero else min(values), max(values), max(2, height // 50))
        low, high = min(rows[0], *values), max(rows[-1], *values)
        return cls(x_max, rows, low, (high - low) or 1.0, _MARGIN if axis.left else 0.5, 100 - _MARGIN, height)

    def pixels(self, y: float) -> float:
        return _TOP + (self.height - _TOP - _BOTTOM) * (1 - (y - self.low) / self.span)

    def percent(self, x: float) -> float:
        return self.left + (self.right - self.left) * x / self.x_max


def _grid(plot: _Plot, axis: Axis, x_label: Callable[[float], str]) -> Iterator[Html]:
    """Yield the grid lines with their labels, and the labels of the horizontal axis."""
    left, right = plot.left, plot.right
    for row in plot.rows:
        y = plot.pixels(row)
        yield tag("line", x1=f"{left}%", x2=f"{right}%", y1=y, y2=y, class_="grid")
        yield tag("text", axis.right(row), x=f"{right + 2}%", y=y + 4, class_="tick")
        if axis.left:
            yield tag("text", axis.left(row), x=f"{left - 2}%", y=y + 4, text_anchor="end", class_="tick")
    for column in ticks(0.0, plot.x_max, 5):
        if column <= plot.x_max:
            place = f"{plot.percent(column):.2f}%"
            anchor = "start" if column == 0 else "middle"
            yield tag("text", x_label(column), x=place, y=plot.height - 8, text_anchor=anchor, class_="tick")


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


def _path(line: ChartLine, plot: _Plot) -> Html:
    places = (f"{_UNITS * x / plot.x_max:.1f},{_UNITS * (1 - (y - plot.low) / plot.span):.1f}" for x, y in line.points)
    kind = "line accent" if line.accent else "line"
    return tag("polyline", points=" ".join(places), class_=kind, vector_effect="non-scaling-stroke")


def _hover(points: Sequence[Point], percent: Callable[[float], float], told: Callable[[Point], str]) -> str:
    stride = max(1, math.ceil(len(points) / _HOVER_POINTS))
    return ";".join(f"{percent(point[0]):.2f},{told(point)}" for point in points[::stride])
