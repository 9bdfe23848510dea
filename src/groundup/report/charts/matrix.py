"""Charts of confusion matrices.

For at most 12 labels, the chart is a table with shaded cells. For more labels, it is an image and a table of the most
frequent confusions. For more than 80 labels, the image is omitted.
"""

from __future__ import annotations

from collections.abc import Sequence

from groundup.report.charts.frame import drawing, figure
from groundup.report.formatting import percent, truncate
from groundup.report.html import Child, Html, join, table, tag

_MAX_TABLE_LABELS = 12
_MAX_DRAWN_LABELS = 80
_NUM_CONFUSIONS = 12
_MAX_TOOLTIPS = 1500  # If more cells are nonzero, tooltips are omitted because they would make up most of the page.
_NUM_SHADES = 10  # The style sheet has the classes s0 to s10.


def draw_confusion_matrix(name: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """Draw a confusion matrix with a row per true label and a column per predicted label.

    The shade of a cell is the fraction of its row.
    """
    title = "Confusion matrix"
    note = "Rows are true labels, and columns are predicted labels. A darker cell is a larger fraction of its row."
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
        f"Each row is one of {size} true labels, and each column is a predicted label. "
        "Correct predictions are on the diagonal."
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
    # The shade of a nonzero cell is at least 1, so that the cell is visible.
    return max(1, round(_NUM_SHADES * value / total)) if value else 0
