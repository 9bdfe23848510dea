"""Funnel charts, which show the fraction of documents and bytes that remains after each filter step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.report.charts.bars import MAX_LINE_CHARS
from groundup.report.charts.frame import drawing
from groundup.report.formatting import truncate
from groundup.report.html import Child, Html, tag

# The row height, the top of the bars, the heights of both bars, and the gap between them, in pixels.
_ROW, _TOP, _THICK, _THIN, _GAP = 54, 21, 13, 5, 2


@dataclass(frozen=True, slots=True)
class FunnelLevel:
    """The documents and bytes that remain after a filter step.

    Attributes:
        label: Label of the step.
        shown: The remaining documents and bytes as they are printed next to the label.
        documents: Remaining documents as a fraction of all documents that were found.
        bytes: Remaining bytes as a fraction of all bytes that were found.
    """

    label: str
    shown: str
    documents: float
    bytes: float


def draw_funnel_chart(name: str, title: str, description: str, levels: Sequence[FunnelLevel]) -> Html:
    """Draw a funnel chart with a thick bar for documents and a thin bar for bytes per step.

    The light part of a bar is the fraction that the step drops.
    """
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
