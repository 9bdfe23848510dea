"""HTML and SVG as nested calls. Text is escaped where it becomes markup, so no section can forget it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from groundup.core.console import visible

VOID = frozenset({"meta", "br", "hr", "rect", "line", "circle", "polyline"})


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that is whole and safe. Only this module and constants of the house make it."""

    markup: str


Child = Html | str | int | None | Iterable["Child"]
Attribute = str | int | float | bool | None


def text(value: str) -> Html:
    """A text from anywhere: markup escaped, control and direction characters made visible, always valid UTF-8."""
    whole = visible(value).encode("utf-8", "replace").decode()
    return Html(html.escape(whole, quote=True))


def join(*children: Child) -> Html:
    """Children in a row; strings among them are text, None is nothing."""
    return Html("".join(_markup(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element.

    Args:
        name: of the element; like the names of attributes, a word of ours, never of the data.
        children: its content; strings are escaped.
        attributes: `class_` is class, `aria_label` is aria-label; None and False leave one out, True gives it no value.
    """
    given = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in VOID and all(child is None for child in children):
        return Html(f"<{name}{given}>" if name in {"meta", "br", "hr"} else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{join(*children).markup}</{name}>")


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Iterable[Child]],
    *,
    figures: int = 0,
    class_: str | None = None,
) -> Html:
    """A data table; the first cell of a row is its heading. It scrolls in itself where the screen is too narrow.

    Args:
        figures: how many columns, counted from the right, hold figures and are set so that digits stand in line.
    """
    kinds = ["figure" if index >= len(columns) - figures else None for index in range(len(columns))]
    head = tag("tr", [tag("th", column, scope="col", class_=kind) for column, kind in zip(columns, kinds, strict=True)])
    body = []
    for row in rows:
        first, *others = row
        cells = [tag("td", cell, class_=kind) for cell, kind in zip(others, kinds[1:], strict=True)]
        body.append(tag("tr", tag("th", first, scope="row"), cells))
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_)
    # Focusable, so that a keyboard can scroll it.
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def folded(summary: Child, *children: Child, class_: str | None = None) -> Html:
    """Content behind a line that opens it."""
    return tag("details", tag("summary", summary), *children, class_=class_)


def foreign(value: str, *, name: str = "div", class_: str = "foreign") -> Html:
    """A text of the data or of a model, in its own writing direction, line ends kept."""
    return tag(name, value, class_=class_, dir="auto")


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child.markup
    if isinstance(child, str | int):
        return text(str(child)).markup
    return "".join(_markup(item) for item in child)


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{text(shown).markup}"'
