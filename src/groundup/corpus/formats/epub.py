"""Read EPUB books. The chapters are read in the order of the spine, which is the reading order."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast
from urllib.parse import unquote

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.html import whole_text
from groundup.corpus.formats.xml import elements
from groundup.corpus.sources.archive import is_unsafe
from groundup.corpus.streams import DecompressionLimit, TooLargeError, as_seekable, limited_stream, read_whole

_PAGES = {"application/xhtml+xml", "text/html", "text/x-oeb1-document"}


@dataclass(slots=True)
class _Book:
    chapters: list[str] = field(default_factory=list)  # names of the chapter files in the order of the spine
    date: str = ""


def read_epub(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the text of a book as a whole, and an `Unreadable` for each chapter that cannot be read."""
    with zipfile.ZipFile(as_seekable(stream)) as file:
        book, encrypted = _book(file, reading.budget), _encrypted(file, reading.budget)
        texts: list[str] = []
        failed: list[Unreadable] = []
        for name in book.chapters:
            origin = f"{path}/{name}"
            if is_unsafe(name):
                failed.append(Unreadable(origin, "unsafe path"))
            elif name in encrypted:
                failed.append(Unreadable(origin, "encrypted"))
            else:
                try:
                    texts.append(whole_text(_read(file, name, reading.budget)))
                except (KeyError, zipfile.BadZipFile) as error:
                    failed.append(Unreadable(origin, "damaged", str(error)))
                except TooLargeError as error:
                    failed.append(Unreadable(origin, "too large", str(error)))
                except RecursionError:
                    failed.append(Unreadable(origin, "too deeply nested"))
        text = "\n\n".join(text for text in texts if text.strip())
        if text:
            yield Extracted(path, text, date=book.date)
        elif not failed:
            yield Unreadable(path, "no text")
        yield from failed


def _read(file: zipfile.ZipFile, name: str, budget: DecompressionLimit) -> bytes:
    with _open(file, name, budget) as stream:
        return read_whole(stream)


def _open(file: zipfile.ZipFile, name: str, budget: DecompressionLimit) -> BinaryIO:
    return limited_stream(cast(BinaryIO, file.open(name)), budget)


def _book(file: zipfile.ZipFile, budget: DecompressionLimit) -> _Book:
    package = next(_package_names(file, budget), "")
    if not package:
        pages = (name for name in file.namelist() if name.lower().endswith((".xhtml", ".html", ".htm")))
        return _Book(sorted(pages))
    folder = posixpath.dirname(package)
    book, pages_by_id = _Book(), dict[str, str]()
    for event, name, element in elements(_open(file, package, budget)):
        if event == "start" and name == "item":
            is_navigation = "nav" in element.get("properties", "").split()
            if element.get("media-type") in _PAGES and not is_navigation:
                target = unquote(element.get("href", "").partition("#")[0])
                pages_by_id[element.get("id", "")] = posixpath.normpath(posixpath.join(folder, target))
        elif event == "start" and name == "itemref" and element.get("idref", "") in pages_by_id:
            book.chapters.append(pages_by_id[element.get("idref", "")])
        elif event == "end" and name == "date" and not book.date:
            book.date = (element.text or "").strip()
    book.chapters = list(dict.fromkeys(book.chapters))  # a malicious EPUB file may repeat a chapter a million times
    return book


def _package_names(file: zipfile.ZipFile, budget: DecompressionLimit) -> Iterator[str]:
    if "META-INF/container.xml" in file.namelist():
        for event, name, element in elements(_open(file, "META-INF/container.xml", budget)):
            if event == "start" and name == "rootfile":
                yield element.get("full-path", "")


def _encrypted(file: zipfile.ZipFile, budget: DecompressionLimit) -> set[str]:
    """Return the names of the encrypted files, which may be all files of the book or only its fonts."""
    if "META-INF/encryption.xml" not in file.namelist():
        return set()
    found = elements(_open(file, "META-INF/encryption.xml", budget))
    return {unquote(element.get("URI", "")) for event, name, element in found if name == "CipherReference"}
