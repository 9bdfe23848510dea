"""Horizontal bar charts. The axis starts at 0, labels are above the bars, and whiskers show intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.report.charts.frame import drawing
from groundup.report.formatting import truncate
from groundup.report.html import Child, Html, tag

_ROW, _BAR, _TOP = 48, 14, 22  # The height of a row, the height of its bar, and the top of the bar, in pixels.
MAX_LINE_CHARS = 46  # The label and the value share a line, which must fit on the screen of a phone.


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a bar chart.

    Attributes:
        label: Label above the bar.
        shown: The value as it is printed next to the label.
        value: Length of the bar in the unit of the chart.
        low: Lower bound of the interval that the whisker shows.
        high: Upper bound of the interval that the whisker shows.
        start: Position of the left end of the bar, which differs from 0 only in a waterfall chart.
        accent: Whether to highlight the bar.
    """

    label: str
    shown: str
    value: float
    low: float | None = None
    high: float | None = None
    start: float = 0.0
    accent: bool = False


def draw_bar_chart(name: str, title: str, description: str, rows: Sequence[Bar], *, x_max: float | None = None) -> Html:
    """Draw a bar chart. `x_max` is the value at the right edge; by default, it is the maximum of values and bounds."""
    ends = [max(row.start + row.value, row.high or 0.0) for row in rows]
    span = x_max or max([*ends, 0.0]) or 1.0
    marks = [_row(row, index * _ROW, span) for index, row in enumerate(rows)]
    return drawing(name, title, description, _ROW * len(rows), *marks)


def _row(row: Bar, top: int, span: float) -> Child:
    kind = "bar accent" if row.accent else "bar"
    middle = top + _TOP + _BAR / 2

    def x(value: float) -> str:
        return f"{100 * min(1.0, max(0.0, value / span)):.3f}%"

    whisker: list[Html] = []
    if row.low is not None and row.high is not None:
        whisker = [
            tag("line", x1=x(row.low), x2=x(row.high), y1=middle, y2=middle, class_="halo"),
            tag("line", x1=x(row.low), x2=x(row.high), y1=middle, y2=middle, class_="whisker"),
            *(
                tag("line", x1=x(end), x2=x(end), y1=middle - 4, y2=middle + 4, class_="whisker")
                for end in (row.low, row.high)
            ),
        ]
    return tag(
        "g",
        tag("title", f"{row.label}: {row.shown}"),
        tag("rect", x=0, y=top + _TOP, width="100%", height=_BAR, rx=2, class_="track"),
        tag("rect", x=x(row.start), y=top + _TOP, width=x(row.value), height=_BAR, rx=2, class_=kind),
        whisker,
        tag(
            "text",
            truncate(row.label, max(8, MAX_LINE_CHARS - len(row.shown))),
            x=0,
            y=top + 15,
            class_="name strong" if row.accent else "name",
        ),
        tag("text", row.shown, x="100%", y=top + 15, text_anchor="end", class_="strong" if row.accent else None),
    )
