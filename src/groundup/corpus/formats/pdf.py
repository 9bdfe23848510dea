"""PDF: the text of its pages as paragraphs, in the order in which they are read."""

from __future__ import annotations

from typing import BinaryIO

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.pdf_layout import PdfPage, layout
from groundup.corpus.isolated import CrashError, isolated
from groundup.corpus.streams import read_whole

_READABLE = 0.5  # of a document's characters, at least, must be in fonts that tell what they mean


def read_pdf(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """A PDF as one text; what cannot be read says why: a password, scanned pages, fonts without a character map.

    A damaged page leaves the others; where the reader itself crashes, the pages before that are kept.
    """
    pages: list[PdfPage] = []
    characters = unmapped = images = 0
    failed: list[Unreadable] = []
    date = ""
    try:
        for number, page in enumerate(isolated("groundup.corpus.formats.pdf_pages:read_pages", read_whole(stream)), 1):
            if "error" in page:
                yield Unreadable(path, page["error"], page["detail"])
                return
            if "damage" in page:
                failed.append(Unreadable(f"{path}#page={number}", "damaged", page["damage"]))
            pages.append(PdfPage.of(page["lines"], page["height"]))
            characters += page["characters"]
            unmapped += page["unmapped"]
            images += page["images"]
            date = page.get("date", date)
    except CrashError as error:
        failed.append(Unreadable(f"{path}#page={len(pages) + 1}", "damaged", f"the reader was stopped: {error}"))
    if unmapped > _READABLE * characters:
        yield Unreadable(path, "fonts without a character map", f"{unmapped} of {characters} characters")
    elif text := layout(pages):
        yield Extracted(path, text, date=date)
    elif not failed:
        scanned = "no text layer: scanned pages"
        yield Unreadable(path, scanned if images else "no text", f"{len(pages)} pages, {images} images")
    yield from failed
