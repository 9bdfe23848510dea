"""Line charts with labeled grid lines. The page's script shows the value of the point under the pointer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from groundup.report.charts.frame import drawing
from groundup.report.html import Child, Html, tag

Point = tuple[float, float]

_MARGIN = 10.0  # Width of the labels at the left and right edge, in percent of the chart's width.
_TOP, _BOTTOM = 14, 30  # Heights of the margins above and below the plot, in pixels.
_UNITS = 1000  # Width and height of the viewBox of the plot.
_MAX_HOVER_POINTS = 240


@dataclass(frozen=True, slots=True)
class ChartLine:
    """The points of a line in a chart. If `accent` is true, the line is thick and colored."""

    points: Sequence[Point]
    accent: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """Formats of the labels of the vertical axis.

    Attributes:
        right: Formats the labels at the right edge.
        left: Formats the labels at the left edge, in another unit. If None, the left edge does not have labels.
        from_zero: Whether the axis starts at 0 instead of the minimum value.
    """

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
        name: Prefix of the element ids, which must be unique in the page.
        title: Accessible name of the chart.
        description: Accessible description of the chart.
        lines: The lines, which must have at least one point in total. The last line is drawn on top, and the pointer
            shows the values of this line.
        axis: Formats of the labels of the vertical axis.
        x_label: Formats a label of the horizontal axis, which starts at 0.
        hover: Formats the point under the pointer. If None, the pointer does not show values.
        height: Height of the chart in pixels.
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
    """Maps values to coordinates in the chart.

    Attributes:
        x_max: Maximum of the horizontal axis, which starts at 0.
        rows: Values at which horizontal grid lines are drawn.
        low: Minimum of the vertical axis.
        span: Difference between the maximum and the minimum of the vertical axis.
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
    """Return the values of the ticks of an axis: about `num_ticks` equally spaced values from `low` to `high`.

    The first tick is at most `low`. The distance between adjacent ticks is 1, 2 or 5 times a power of ten.
    """
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
