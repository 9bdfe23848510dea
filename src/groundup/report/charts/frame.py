"""Common parts of charts: heading, drawing with title and description, and data table."""

from __future__ import annotations

from groundup.report.html import Child, Html, details, tag


def figure(title: str, drawing: Html, *, note: Child = None, data: Html | None = None) -> Html:
    """Create a figure: heading, drawing, and a collapsed data table."""
    heading = tag("figcaption", tag("strong", title), tag("span", note) if note is not None else None)
    return tag("figure", heading, drawing, _data_table(title, data))


def _data_table(title: str, data: Html | None) -> Html | None:
    # Screen readers read the title of the chart, too.
    return details(["Data", tag("span", f" of: {title}", class_="visually-hidden")], data) if data else None


def drawing(name: str, title: str, description: str, height: int, *marks: Child, points: str | None = None) -> Html:
    """Create an SVG of any width: x is in percent and y in pixels, so that the font size is fixed.

    Args:
        name: Prefix of ids, unique in the page.
        title: Accessible name.
        description: Accessible description.
        height: Height in pixels.
        *marks: Content.
        points: Values that the script shows under the pointer: "x percent,label" items, separated by semicolons.
    """
    label = tag("title", title, id=f"{name}-title") if title else None
    return tag(
        "svg",
        label,
        tag("desc", description, id=f"{name}-desc"),
        *marks,
        width="100%",
        height=height,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        data_points=points,
    )
