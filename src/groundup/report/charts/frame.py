"""Parts that all charts have: a heading, an SVG image with a title and a description, and a data table."""

from __future__ import annotations

from groundup.report.html import Child, Html, details, tag


def figure(title: str, drawing: Html, *, note: Child = None, data: Html | None = None) -> Html:
    """Create a figure from a heading, an SVG image, and a collapsed data table."""
    heading = tag("figcaption", tag("strong", title), tag("span", note) if note is not None else None)
    return tag("figure", heading, drawing, _data_table(title, data))


def _data_table(title: str, data: Html | None) -> Html | None:
    # The hidden text makes screen readers announce which chart the data belong to.
    return details(["Data", tag("span", f" of: {title}", class_="visually-hidden")], data) if data else None


def drawing(name: str, title: str, description: str, height: int, *marks: Child, points: str | None = None) -> Html:
    """Create an SVG image that scales to any width. x coordinates are percentages, and y coordinates are pixels.

    Because the image does not have a viewBox, its font size does not scale.

    Args:
        name: Prefix of the element ids, which must be unique in the page.
        title: Accessible name of the image.
        description: Accessible description of the image.
        height: Height of the image in pixels.
        *marks: SVG elements inside the image.
        points: Values that the page's script shows when the pointer is over the image. Each item is "x,label", where x
            is a percentage of the width. Items are separated by semicolons.
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
