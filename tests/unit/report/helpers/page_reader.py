"""A parser of report pages, based on the standard library."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "input", "img", "link"}


@dataclass
class Element:
    """An element with its attributes, children and own text."""

    name: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    own_text: list[str] = field(default_factory=list)
    parts: list[Element | str] = field(default_factory=list)

    def walk(self) -> list[Element]:
        return [self, *(found for child in self.children for found in child.walk())]

    def all(self, name: str, **attributes: str) -> list[Element]:
        expected = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            e
            for e in self.walk()
            if e.name == name and all(value in e.attributes.get(key, "").split() for key, value in expected.items())
        ]

    @property
    def text(self) -> str:
        """Text of the element and its descendants, with collapsed white space."""
        joined = "".join(part if isinstance(part, str) else part.text for part in self.parts)
        return re.sub(r"\s+", " ", joined)

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Names of elements and attributes in order, which no text may change."""
        return [(e.name, tuple(sorted(e.attributes))) for e in self.walk()]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"duplicate attribute in <{tag}>: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        self.open[-1].parts.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].own_text.append(data)
        self.open[-1].parts.append(data)


def parse(page: str) -> Element:
    """Parse a page. Each element must be closed in the correct order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert [element.name for element in reader.open] == ["document"], "unclosed elements"
    return reader.root
