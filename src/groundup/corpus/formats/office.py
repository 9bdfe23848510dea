"""Read word-processor documents: Office Open XML (.docx, ECMA-376) and OpenDocument (.odt, ISO 26300)."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast
from xml.etree.ElementTree import Element

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.xml import elements
from groundup.corpus.streams import as_seekable, limited_stream

_PARAGRAPHS = frozenset({"p", "h"})
_TABLES, _ROWS, _CELLS = {"tbl", "table"}, {"tr", "table-row"}, {"tc", "table-cell"}
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "noBreakHyphen": "\u2011"}
_NOT_SHOWN = {  # elements to skip, such as fallbacks for old programs, deleted text, field codes and footnote marks
    "Fallback", "moveFrom", "del", "instrText", "rPr", "rt", "note-citation", "annotation", "tracked-changes",
    "soft-page-break",
}  # fmt: skip

Inline = Callable[[Element, list[str]], str]


def read_docx(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the text of a Word document: headings, paragraphs, lists and tables, followed by the notes."""
    with zipfile.ZipFile(as_seekable(stream)) as file:

        def part(name: str) -> BinaryIO:
            return limited_stream(cast(BinaryIO, file.open(name)), reading.budget)

        names = set(file.namelist())
        text, noted = _text(part(_main_part(part) if "_rels/.rels" in names else "word/document.xml"), _word)
        notes = dict[str, str]()
        for kind in ("footnote", "endnote"):
            if f"word/{kind}s.xml" in names and any(note.startswith(kind) for note in noted):
                notes |= _word_notes(part(f"word/{kind}s.xml"), kind)
        date = _created(part("docProps/core.xml")) if "docProps/core.xml" in names else ""
        shown = "\n\n".join([text, *(notes[note] for note in noted if notes.get(note))])
        yield Extracted(path, shown, date=date) if shown.strip() else Unreadable(path, "no text")


def read_odt(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the text of an OpenDocument text file, in the same form as `read_docx`."""
    with zipfile.ZipFile(as_seekable(stream)) as file:

        def part(name: str) -> BinaryIO:
            return limited_stream(cast(BinaryIO, file.open(name)), reading.budget)

        text, notes = _text(part("content.xml"), _open_document)
        date = _created(part("meta.xml")) if "meta.xml" in file.namelist() else ""
        shown = "\n\n".join([text, *notes])
        yield Extracted(path, shown, date=date) if shown.strip() else Unreadable(path, "no text")


def _main_part(part: Callable[[str], BinaryIO]) -> str:
    for _, name, element in elements(part("_rels/.rels")):
        if name == "Relationship" and element.get("Type", "").endswith("/officeDocument"):
            return element.get("Target", "").lstrip("/")
    return "word/document.xml"


def _created(stream: BinaryIO) -> str:
    for event, name, element in elements(stream):
        if event == "end" and name in ("created", "creation-date"):
            return (element.text or "").strip()
    return ""


def _text(stream: BinaryIO, inline: Inline) -> tuple[str, list[str]]:
    """Return the text of a document and its notes (for Word, the ids of the notes) in order of reference."""
    notes: list[str] = []
    text, was_item = "", False
    for shown, is_item in _blocks(stream, inline, notes):
        if shown.strip():
            between = "\n" if was_item and is_item else "\n\n"
            text += f"{between if text else ''}{shown.rstrip()}"
            was_item = is_item
    return text, notes


def _blocks(stream: BinaryIO, inline: Inline, notes: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield each paragraph and table as text, and whether it is a list item."""
    inside = 0  # nesting depth of paragraphs, because text boxes and notes in a paragraph contain paragraphs
    items = 0  # nesting depth of list items
    tables: list[list[list[str]]] = []
    cells: list[list[str]] = []
    for event, name, element in elements(stream, _PARAGRAPHS):
        step = 1 if event == "start" else -1
        if name in _PARAGRAPHS:
            inside += step
            if step < 0 and not inside:
                text = inline(element, notes)
                is_item = items > 0 or _is_word_item(element)
                if cells:
                    cells[-1].append(text)
                else:
                    yield f"- {text}" if is_item and text else text, is_item
        elif inside:
            continue
        elif name == "list-item":
            items += step
        elif name in _TABLES:
            if step > 0:
                tables.append([])
            elif tables:
                rows = ("\t".join(row) for row in tables.pop() if any(row))
                if cells:
                    cells[-1] += rows
                else:
                    yield "\n".join(rows), False
        elif name in _ROWS and step > 0 and tables:
            tables[-1].append([])
        elif name in _CELLS:
            if step > 0:
                cells.append([])
            elif cells:
                cell = " ".join(text.strip() for text in cells.pop() if text.strip())
                if tables and tables[-1]:
                    tables[-1][-1].append(cell)


def _is_word_item(paragraph: Element) -> bool:
    for properties in paragraph:
        if _local(properties) == "pPr":
            names = {_local(each): each for each in properties}
            style = (
                next((value for key, value in names["pStyle"].items() if key.endswith("val")), "")
                if "pStyle" in names
                else ""
            )
            return "numPr" in names or style.startswith("List")
    return False


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _attribute(element: Element, name: str) -> str:
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), "")


def _word(element: Element, notes: list[str]) -> str:
    """Return the text of a Word element. Line breaks in the XML source are ignored."""
    name = _local(element)
    if name == "t":
        return element.text or ""
    if name in _BREAKS:
        return _BREAKS[name]
    if name in ("footnoteReference", "endnoteReference"):
        notes.append(name.removesuffix("Reference") + _attribute(element, "id"))
    if name in _NOT_SHOWN or name == "pPr":
        return ""
    text = "".join(_word(child, notes) for child in element)
    return f"{text}\n" if name == "p" and text else text  # a paragraph inside a text box ends with a line break


def _word_notes(stream: BinaryIO, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for event, name, element in elements(stream, {kind}):
        if event == "end" and name == kind:
            found[kind + _attribute(element, "id")] = " ".join(_word(element, []).split())
    return found


def _open_document(element: Element, notes: list[str]) -> str:
    name = _local(element)
    if name == "s":
        count = _attribute(element, "c")
        return " " * (min(int(count), 100) if count.isdigit() else 1)
    if name in _BREAKS:
        return _BREAKS[name]
    if name in _NOT_SHOWN:
        return ""
    parts = [element.text or ""]
    for child in element:
        parts += [_open_document(child, notes), child.tail or ""]
    text = "".join(parts)
    if name == "note-body":
        notes.append(" ".join(text.split()))
        return ""
    return text
