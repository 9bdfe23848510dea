"""What every chart has: a heading, a drawing with title and description, and its figures as a table."""

from __future__ import annotations

from groundup.report.html import Child, Html, folded, tag


def figure(title: str, drawing: Html, *, note: Child = None, figures: Html | None = None) -> Html:
    """A drawing with its heading above and its figures folded away below."""
    heading = tag("figcaption", tag("strong", title), tag("span", note) if note is not None else None)
    return tag("figure", heading, drawing, _folded(title, figures))


def _folded(title: str, figures: Html | None) -> Html | None:
    # Who hears the page hears of what these are the figures.
    return folded(["The figures", tag("span", f" of: {title}", class_="heard")], figures) if figures else None


def drawing(name: str, title: str, description: str, height: int, *marks: Child, points: str | None = None) -> Html:
    """An SVG as wide as its place: x in percent, y in pixels, so that letters keep their size on a phone.

    Args:
        name: makes the ids of title and description, unique in a page.
        points: what the page's script shows under the pointer: "x percent,label" items, separated by semicolons.
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
