"""Plain text and Markdown, of any size."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from groundup.corpus.formats.base import Extracted, Found, Reading, UnknownFormatError
from groundup.corpus.streams import MEBIBYTE, detect_encoding, looks_binary

BLOCK = 8 * MEBIBYTE  # characters of plain text handled at a time


def text_blocks(stream: BinaryIO) -> Iterator[str]:
    """A text decoded in blocks cut at paragraphs, so that a file of any size needs little memory.

    Raises:
        UnknownFormatError: this is no text.
    """
    head = stream.read(BLOCK)
    if looks_binary(head[:8192]):
        raise UnknownFormatError("binary")
    decoder = codecs.getincrementaldecoder(detect_encoding(head))("replace")
    pending, chunk = "", head
    while chunk:
        pending += decoder.decode(chunk)
        if len(pending) >= BLOCK:
            cut = next((at for mark in ("\n\n", "\n", " ") if (at := pending.rfind(mark)) > 0), len(pending))
            yield pending[:cut]
            pending = pending[cut:]
        chunk = stream.read(BLOCK)
    yield pending + decoder.decode(b"", final=True)


def read_text(path: str, stream: BinaryIO, _: Reading) -> Found:
    """A plain text: one piece, or several if it is longer than `BLOCK`."""
    for number, block in enumerate(text_blocks(stream)):
        yield Extracted(path if number == 0 else f"{path}+{number}", block)


_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)


def read_markdown(path: str, stream: BinaryIO, reading: Reading) -> Found:
    """A Markdown file without its front matter; the marks stay, models should write them."""
    for found in read_text(path, stream, reading):
        if isinstance(found, Extracted):
            found = replace(found, text=_FRONT_MATTER.sub("", found.text.replace("\r\n", "\n")))
        yield found
