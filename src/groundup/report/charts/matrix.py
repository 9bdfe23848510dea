"""Confusion matrices: a shaded table for few labels, a drawing and the most frequent confusions for many."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.report.charts.frame import drawing, figure
from groundup.report.formatting import percent, truncate
from groundup.report.html import Child, Html, join, table, tag

_MAX_TABLE_LABELS = 12
_MAX_DRAWN_LABELS = 80
_NUM_CONFUSIONS = 12
_MAX_TOOLTIPS = 1500  # with more nonzero cells, tooltips would be most of the page
_NUM_SHADES = 10  # CSS classes s0 ... s10


def draw_confusion_matrix(name: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """Draw a confusion matrix. Rows are true labels, columns are predictions, and shades are fractions of the row."""
    title = "Confusion matrix"
    note = "Rows are true labels, columns are predictions. Darker cells are larger fractions of their row."
    if len(labels) <= _MAX_TABLE_LABELS:
        return figure(title, _table(title, labels, counts), note=note)
    parts: list[Child] = [_top_confusions(labels, counts)]
    if len(labels) <= _MAX_DRAWN_LABELS:
        parts.insert(0, _drawing(name, title, labels, counts))
    return figure(title, join(*parts), note=note)


def _table(title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    head = tag(
        "tr", tag("td", "true label", class_="corner"), [tag("th", truncate(name, 24), scope="col") for name in labels]
    )
    body = []
    for index, (label, row) in enumerate(zip(labels, counts, strict=False)):
        total = sum(row) or 1
        cells = []
        for column, value in enumerate(row):
            correct = " correct" if column == index else ""
            share = tag("small", percent(value / total, 0)) if value else None
            cells.append(tag("td", f"{value:,} ", share, class_=f"s{_shade(value, total)}{correct}"))
        body.append(tag("tr", tag("th", truncate(label, 32), scope="row"), cells))
    element = tag("table", tag("caption", title), tag("thead", head), tag("tbody", body), class_="matrix")
    return tag("div", element, class_="scroll", tabindex=0, role="region", aria_label=title)


def _drawing(name: str, title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    height = max(6, min(16, 480 // len(labels))) * len(labels)
    filled = [
        (row, column, value, sum(values) or 1)
        for row, values in enumerate(counts)
        for column, value in enumerate(values)
        if value
    ]
    marks = []
    for row, column, value, total in filled:
        tooltip = f"{labels[row]} → {labels[column]}: {value:,}"
        title_of_cell = tag("title", tooltip) if len(filled) <= _MAX_TOOLTIPS else None
        kind = f"cell s{_shade(value, total)}"
        marks.append(tag("rect", title_of_cell, x=column, y=row, width=1, height=1, class_=kind))
    size = len(labels)
    cells = tag("svg", marks, width="100%", height=height, viewBox=f"0 0 {size} {size}", preserveAspectRatio="none")
    description = (
        f"{size} labels from top to bottom, predictions from left to right; correct predictions are on the diagonal."
    )
    return drawing(name, title, description, height, cells)


def _top_confusions(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    wrong = [
        (value, row, column)
        for row, values in enumerate(counts)
        for column, value in enumerate(values)
        if value and row != column
    ]
    wrong.sort(key=lambda item: (-item[0], item[1], item[2]))
    rows = [(labels[row], labels[column], f"{value:,}") for value, row, column in wrong[:_NUM_CONFUSIONS]]
    return table("Most frequent confusions", ("true label", "predicted label", "count"), rows, num_numeric=1)


def _shade(value: int, total: int) -> int:
    # Each nonzero cell gets a visible shade.
    return max(1, round(_NUM_SHADES * value / total)) if value else 0
