"""A funnel: after each step, how much is left of all that was found, and how much that step took away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.report.charts.bars import LINE_CHARACTERS
from groundup.report.charts.frame import drawing
from groundup.report.html import Child, Html, tag
from groundup.report.words import shortened

_ROW, _TOP, _THICK, _THIN, _GAP = 54, 21, 13, 5, 2  # pixels: of a row, to its bars, and of them


@dataclass(frozen=True, slots=True)
class Level:
    """What is left after one step.

    Attributes:
        shown: its figures as text.
        documents: that are left, as a share of all that were found.
        bytes: of their text, as a share.
    """

    label: str
    shown: str
    documents: float
    bytes: float


def draw_funnel_chart(name: str, title: str, description: str, levels: Sequence[Level]) -> Html:
    """The drawing: thick bars are documents, thin ones their text; what a step took away is paler."""
    before = [levels[0], *levels[:-1]]
    last = len(levels) - 1
    marks = [
        _level(level, above, index * _ROW, accent=index == last)
        for index, (level, above) in enumerate(zip(levels, before, strict=True))
    ]
    return drawing(name, title, description, _ROW * len(levels), *marks)


def _level(level: Level, above: Level, top: int, *, accent: bool) -> Child:
    thin = top + _TOP + _THICK + _GAP
    strong = "strong" if accent else None
    return tag(
        "g",
        tag("title", f"{level.label}: {level.shown}"),
        _bar(level.documents, above.documents, top + _TOP, _THICK, accent=accent),
        _bar(level.bytes, above.bytes, thin, _THIN, accent=accent),
        tag(
            "text",
            shortened(level.label, max(8, LINE_CHARACTERS - len(level.shown))),
            x=0,
            y=top + 15,
            class_="name strong" if accent else "name",
        ),
        tag("text", level.shown, x="100%", y=top + 15, text_anchor="end", class_=strong),
    )


def _bar(left: float, before: float, top: int, height: int, *, accent: bool) -> Child:
    kind = "bar accent" if accent else "bar"
    return [
        tag("rect", x=0, y=top, width="100%", height=height, rx=2, class_="track"),
        tag("rect", x=0, y=top, width=_share(max(before, left)), height=height, rx=2, class_="gone"),
        tag("rect", x=0, y=top, width=_share(left), height=height, rx=2, class_=kind),
    ]


def _share(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.3f}%"
