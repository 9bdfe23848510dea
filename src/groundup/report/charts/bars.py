"""Horizontal bars from zero, each with its name and figure written above it, and a whisker for its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.report.charts.frame import drawing
from groundup.report.html import Child, Html, tag
from groundup.report.words import shortened

_ROW, _BAR, _TOP = 48, 14, 22  # pixels: of a row, of its bar, from the row's top to the bar
LINE_CHARACTERS = 46  # of a label and its figure, together: what a phone shows in a line


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: what it stands for.
        shown: its figure as text.
        value: its length, in the chart's unit.
        low: of its interval, with `high`.
        start: where it begins; other than 0 in a waterfall.
        accent: this is the one that the chart is about.
    """

    label: str
    shown: str
    value: float
    low: float | None = None
    high: float | None = None
    start: float = 0.0
    accent: bool = False


def draw_bar_chart(name: str, title: str, description: str, rows: Sequence[Bar], *, most: float | None = None) -> Html:
    """The drawing. `most` is the value at the right edge; by default the largest end or bound."""
    ends = [max(row.start + row.value, row.high or 0.0) for row in rows]
    span = most or max([*ends, 0.0]) or 1.0
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
            shortened(row.label, max(8, LINE_CHARACTERS - len(row.shown))),
            x=0,
            y=top + 15,
            class_="name strong" if row.accent else "name",
        ),
        tag("text", row.shown, x="100%", y=top + 15, text_anchor="end", class_="strong" if row.accent else None),
    )
