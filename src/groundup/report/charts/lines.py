"""Line charts with a labeled grid, and values under the pointer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from groundup.report.charts.frame import drawing
from groundup.report.html import Child, Html, tag

Point = tuple[float, float]

_MARGIN = 10.0  # percent of the width, for the labels of the grid
_TOP, _BOTTOM = 14, 30  # pixels
_UNITS = 1000  # width and height of the plot's view box
_MAX_HOVER_POINTS = 240


@dataclass(frozen=True, slots=True)
class ChartLine:
    """The points of a line. An accent line is thick and colored."""

    points: Sequence[Point]
    accent: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """Labels of the vertical axis: `right` at the right edge and, in another unit, `left` at the left edge."""

    right: Callable[[float], str]
    left: Callable[[float], str] | None = None
    from_zero: bool = False


def draw_line_chart(
    name: str,
    title: str,
    description: str,
    lines: Sequence[ChartLine],
    axis: Axis,
    *,
    x_label: Callable[[float], str],
    hover: Callable[[Point], str] | None = None,
    height: int = 300,
) -> Html:
    """Draw a line chart.

    Args:
        name: Prefix of ids, unique in the page.
        title: Accessible name.
        description: Accessible description.
        lines: Lines with at least one point in total. The pointer reads the last line, which is drawn on top.
        axis: Labels of the vertical axis.
        x_label: Formats a value of the horizontal axis, which starts at 0.
        hover: Formats a point under the pointer.
        height: Height in pixels.
    """
    plot = _Plot.of(lines, axis, height)
    marks: list[Child] = [*_grid(plot, axis, x_label)]
    marks.append(
        tag(
            "svg",
            [_path(line, plot) for line in lines if line.points],
            x=f"{plot.left}%",
            y=_TOP,
            width=f"{plot.right - plot.left}%",
            height=height - _TOP - _BOTTOM,
            viewBox=f"0 0 {_UNITS} {_UNITS}",
            preserveAspectRatio="none",
            overflow="visible",
        )
    )
    last = lines[-1].points
    if last:
        x, y = last[-1]
        marks.append(tag("circle", cx=f"{plot.percent(x):.2f}%", cy=plot.pixels(y), r=4, class_="dot"))
    if hover:
        marks.append(tag("line", x1=0, x2=0, y1=_TOP, y2=height - _BOTTOM, class_="cursor"))
    points = _hover(last, plot.percent, hover) if hover else None
    return drawing(name, title, description, height, *marks, points=points)


@dataclass(frozen=True, slots=True)
class _Plot:
    """The mapping of values to coordinates.

    Attributes:
        x_max: Right end of the horizontal axis, which starts at 0.
        rows: Values of the horizontal grid lines.
        low: Lower end of the vertical axis.
        span: Length of the vertical axis.
        left: Left edge of the plot, in percent of the width.
        right: Right edge of the plot, in percent of the width.
        height: Height of the chart in pixels.
    """

    x_max: float
    rows: Sequence[float]
    low: float
    span: float
    left: float
    right: float
    height: int

    @classmethod
    def of(cls, lines: Sequence[ChartLine], axis: Axis, height: int) -> _Plot:
        x_max = max(x for line in lines for x, _ in line.points) or 1.0
        values = [y for line in lines for _, y in line.points]
        rows = ticks(0.0 if axis.from_zero else min(values), max(values), max(2, height // 50))
        low, high = min(rows[0], *values), max(rows[-1], *values)
        return cls(x_max, rows, low, (high - low) or 1.0, _MARGIN if axis.left else 0.5, 100 - _MARGIN, height)

    def pixels(self, y: float) -> float:
        return _TOP + (self.height - _TOP - _BOTTOM) * (1 - (y - self.low) / self.span)

    def percent(self, x: float) -> float:
        return self.left + (self.right - self.left) * x / self.x_max


def _grid(plot: _Plot, axis: Axis, x_label: Callable[[float], str]) -> Iterator[Html]:
    """Yield the grid lines and the labels of both axes."""
    left, right = plot.left, plot.right
    for row in plot.rows:
        y = plot.pixels(row)
        yield tag("line", x1=f"{left}%", x2=f"{right}%", y1=y, y2=y, class_="grid")
        yield tag("text", axis.right(row), x=f"{right + 2}%", y=y + 4, class_="tick")
        if axis.left:
            yield tag("text", axis.left(row), x=f"{left - 2}%", y=y + 4, text_anchor="end", class_="tick")
    for column in ticks(0.0, plot.x_max, 5):
        if column <= plot.x_max:
            x = f"{plot.percent(column):.2f}%"
            anchor = "start" if column == 0 else "middle"
            yield tag("text", x_label(column), x=x, y=plot.height - 8, text_anchor=anchor, class_="tick")


def ticks(low: float, high: float, num_ticks: int) -> list[float]:
    """Return about `num_ticks` multiples of 1, 2 or 5 times a power of ten; the first one is at most `low`."""
    if not high > low:
        return [low]
    raw = (high - low) / num_ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    count = math.floor((high / step) + 1e-9) - first + 1
    return [round((first + index) * step, 12) for index in range(count)]


def _path(line: ChartLine, plot: _Plot) -> Html:
    points = (f"{_UNITS * x / plot.x_max:.1f},{_UNITS * (1 - (y - plot.low) / plot.span):.1f}" for x, y in line.points)
    kind = "line accent" if line.accent else "line"
    return tag("polyline", points=" ".join(points), class_=kind, vector_effect="non-scaling-stroke")


def _hover(points: Sequence[Point], percent: Callable[[float], float], label: Callable[[Point], str]) -> str:
    stride = max(1, math.ceil(len(points) / _MAX_HOVER_POINTS))
    return ";".join(f"{percent(point[0]):.2f},{label(point)}" for point in points[::stride])
