"""A confusion matrix: a shaded table where it is small, a drawing and the commonest confusions where it is large."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.report.charts.frame import drawing, figure
from groundup.report.html import Child, Html, join, table, tag
from groundup.report.words import percent, shortened

_TABLE_LABELS = 12
_DRAWN_LABELS = 80
_COMMONEST = 12
_TOLD_CELLS = 1500  # a matrix that is fuller than this tells no names on hover: they would be most of the page
_SHADES = 10  # classes s0 ... s10 of the style sheet


def draw_confusion_matrix(name: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """Rows are the true labels, columns what was predicted; shaded by the share of the row."""
    title = "What is mistaken for what"
    note = "Each row is a true label, each column a prediction; the darker, the larger the share of the row."
    if len(labels) <= _TABLE_LABELS:
        return figure(title, _table(title, labels, counts), note=note)
    parts: list[Child] = [_commonest(labels, counts)]
    if len(labels) <= _DRAWN_LABELS:
        parts.insert(0, _drawn(name, title, labels, counts))
    return figure(title, join(*parts), note=note)


def _table(title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    head = tag(
        "tr", tag("td", "true label", class_="corner"), [tag("th", shortened(name, 24), scope="col") for name in labels]
    )
    body = []
    for index, (label, row) in enumerate(zip(labels, counts, strict=False)):
        of = sum(row) or 1
        cells = []
        for column, value in enumerate(row):
            right = " right" if column == index else ""
            share = tag("small", percent(value / of, 0)) if value else None
            cells.append(tag("td", f"{value:,} ", share, class_=f"s{_shade(value, of)}{right}"))
        body.append(tag("tr", tag("th", shortened(label, 32), scope="row"), cells))
    whole = tag("table", tag("caption", title), tag("thead", head), tag("tbody", body), class_="matrix")
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=title)


def _drawn(name: str, title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    height = max(6, min(16, 480 // len(labels))) * len(labels)
    filled = [
        (row, column, value, sum(values) or 1)
        for row, values in enumerate(counts)
        for column, value in enumerate(values)
        if value
    ]
    marks = []
    for row, column, value, of in filled:
        told = f"{labels[row]} → {labels[column]}: {value:,}"
        title_of_cell = tag("title", told) if len(filled) <= _TOLD_CELLS else None
        kind = f"cell s{_shade(value, of)}"
        marks.append(tag("rect", title_of_cell, x=column, y=row, width=1, height=1, class_=kind))
    size = len(labels)
    cells = tag("svg", marks, width="100%", height=height, viewBox=f"0 0 {size} {size}", preserveAspectRatio="none")
    description = (
        f"{size} labels from top to bottom, predictions from left to right; what is right lies on the diagonal."
    )
    return drawing(name, title, description, height, cells)


def _commonest(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    wrong = [
        (value, row, column)
        for row, values in enumerate(counts)
        for column, value in enumerate(values)
        if value and row != column
    ]
    wrong.sort(key=lambda item: (-item[0], item[1], item[2]))
    rows = [(labels[row], labels[column], f"{value:,}") for value, row, column in wrong[:_COMMONEST]]
    return table("The commonest confusions", ("true label", "taken for", "how often"), rows, figures=1)


def _shade(value: int, of: int) -> int:
    # Whatever is there at all is shaded.
    return max(1, round(_SHADES * value / of)) if value else 0
