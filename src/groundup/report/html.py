"""Functions that build HTML and SVG elements. The functions escape all text, so callers must not escape text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from groundup.core.console import visible

VOID = frozenset({"meta", "br", "hr", "rect", "line", "circle", "polyline"})


@dataclass(frozen=True, slots=True)
class Html:
    """Well-formed, safe markup. Only this module and constants of this package create `Html` objects."""

    markup: str


Child = Html | str | int | None | Iterable["Child"]
Attribute = str | int | float | bool | None


def text(value: str) -> Html:
    """Escape a text for HTML. Visible symbols replace control characters and bidirectional formatting characters.

    The result is valid UTF-8.
    """
    clean = visible(value).encode("utf-8", "replace").decode()
    return Html(html.escape(clean, quote=True))


def join(*children: Child) -> Html:
    """Concatenate elements and strings. Strings are escaped, and None is skipped."""
    return Html("".join(_markup(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Create an element.

    Args:
        name: Name of the element. Names of elements and attributes are not escaped, so they must be constants.
        *children: Content of the element. Strings are escaped.
        **attributes: Attributes of the element. The keyword `class_` becomes the attribute class, and `aria_label`
            becomes aria-label. An attribute is omitted if its value is None or False. If the value is True, the
            attribute is added without a value.
    """
    rendered = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in VOID and all(child is None for child in children):
        return Html(f"<{name}{rendered}>" if name in {"meta", "br", "hr"} else f"<{name}{rendered}/>")
    return Html(f"<{name}{rendered}>{join(*children).markup}</{name}>")


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Iterable[Child]],
    *,
    num_numeric: int = 0,
    class_: str | None = None,
) -> Html:
    """Create a table that scrolls horizontally on a narrow screen.

    Args:
        caption: Caption of the table, which is also its accessible name.
        columns: Column headings.
        rows: Rows of cells. The first cell is the heading of the row.
        num_numeric: Number of columns at the right that contain numbers. These columns are right-aligned.
        class_: CSS class of the table.
    """
    kinds = ["numeric" if index >= len(columns) - num_numeric else None for index in range(len(columns))]
    head = tag("tr", [tag("th", column, scope="col", class_=kind) for column, kind in zip(columns, kinds, strict=True)])
    body = []
    for row in rows:
        first, *others = row
        cells = [tag("td", cell, class_=kind) for cell, kind in zip(others, kinds[1:], strict=True)]
        body.append(tag("tr", tag("th", first, scope="row"), cells))
    element = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_)
    # The table is focusable, so that users can scroll it with the keyboard.
    return tag("div", element, class_="scroll", tabindex=0, role="region", aria_label=caption)


def details(summary: Child, *children: Child, class_: str | None = None) -> Html:
    """Create a collapsed section, which the reader can expand."""
    return tag("details", tag("summary", summary), *children, class_=class_)


def untrusted(value: str, *, name: str = "div", class_: str = "untrusted") -> Html:
    """Create an element for text from the data or from a model, with its line breaks and its writing direction."""
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
