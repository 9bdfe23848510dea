"""Funnel charts: the fraction of documents and bytes after each filter step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.report.charts.bars import MAX_LINE_CHARS
from groundup.report.charts.frame import drawing
from groundup.report.formatting import truncate
from groundup.report.html import Child, Html, tag

_ROW, _TOP, _THICK, _THIN, _GAP = 54, 21, 13, 5, 2  # pixels: row height, offset of the bars, bar heights, gap


@dataclass(frozen=True, slots=True)
class FunnelLevel:
    """The state after one step.

    Attributes:
        label: Name of the step.
        shown: Counts as text.
        documents: Remaining fraction of the documents found.
        bytes: Remaining fraction of the bytes found.
    """

    label: str
    shown: str
    documents: float
    bytes: float


def draw_funnel_chart(name: str, title: str, description: str, levels: Sequence[FunnelLevel]) -> Html:
    """Draw a funnel. Thick bars are documents, thin bars are bytes, and the light part is dropped in the step."""
    before = [levels[0], *levels[:-1]]
    last = len(levels) - 1
    marks = [
        _level(level, above, index * _ROW, accent=index == last)
        for index, (level, above) in enumerate(zip(levels, before, strict=True))
    ]
    return drawing(name, title, description, _ROW * len(levels), *marks)


def _level(level: FunnelLevel, above: FunnelLevel, top: int, *, accent: bool) -> Child:
    thin = top + _TOP + _THICK + _GAP
    strong = "strong" if accent else None
    return tag(
        "g",
        tag("title", f"{level.label}: {level.shown}"),
        _bar(level.documents, above.documents, top + _TOP, _THICK, accent=accent),
        _bar(level.bytes, above.bytes, thin, _THIN, accent=accent),
        tag(
            "text",
            truncate(level.label, max(8, MAX_LINE_CHARS - len(level.shown))),
            x=0,
            y=top + 15,
            class_="name strong" if accent else "name",
        ),
        tag("text", level.shown, x="100%", y=top + 15, text_anchor="end", class_=strong),
    )


def _bar(after: float, before: float, top: int, height: int, *, accent: bool) -> Child:
    kind = "bar accent" if accent else "bar"
    return [
        tag("rect", x=0, y=top, width="100%", height=height, rx=2, class_="track"),
        tag("rect", x=0, y=top, width=_percent(max(before, after)), height=height, rx=2, class_="dropped"),
        tag("rect", x=0, y=top, width=_percent(after), height=height, rx=2, class_=kind),
    ]


def _percent(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.3f}%"
