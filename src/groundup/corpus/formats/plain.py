"""Read plain text and Markdown files of any size."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, cast

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, UnknownFormatError, Unreadable
from groundup.corpus.streams import MEBIBYTE, READ_ERRORS, detect_encoding, looks_binary

BLOCK = 8 * MEBIBYTE  # approximate number of characters per block
_BREAK = re.compile(r"[\s。．！？।]")


def text_blocks(stream: BinaryIO) -> Iterator[str]:
    """Decode a text file in blocks that end at a paragraph. The memory use does not depend on the size of the file.

    Args:
        stream: The file.

    Yields:
        Blocks of about `BLOCK` characters.

    Raises:
        UnknownFormatError: The file is binary.
        Exception: The stream is damaged. The text before the damaged part is yielded first.
    """
    head, damage = _chunk(stream)
    if damage and not head:
        raise damage
    if looks_binary(head[:8192]):
        raise UnknownFormatError("binary")
    decoder = codecs.getincrementaldecoder(detect_encoding(head))("replace")
    pending, chunk = "", head
    while chunk:
        pending += decoder.decode(chunk)
        if len(pending) >= BLOCK:
            cut = next((at for separator in ("\n\n", "\n", " ") if (at := pending.rfind(separator)) > 0), len(pending))
            yield pending[:cut]
            pending = pending[cut:]
        if damage:
            break
        chunk, damage = _chunk(stream)
    yield pending + decoder.decode(b"", final=True)
    if damage:
        raise damage


def _chunk(stream: BinaryIO) -> tuple[bytes, Exception | None]:
    """Read up to `BLOCK` bytes, and return them with the read error that follows, or None.

    If an error occurs, `stream.read` would discard the bytes before the error.
    """
    chunk = bytearray()
    try:
        while len(chunk) < BLOCK and (more := cast(io.BufferedIOBase, stream).read1(BLOCK - len(chunk))):
            chunk += more
    except READ_ERRORS as error:
        return bytes(chunk), error
    return bytes(chunk), None


def read_plain_text(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """Yield the text of a file. A text that is longer than `BLOCK` characters is yielded in several pieces."""
    was_endless = False
    for number, block in enumerate(text_blocks(stream)):
        origin = path if number == 0 else f"{path}+{number}"
        is_endless = len(block) >= BLOCK and not _BREAK.search(block.strip())
        if not is_endless:
            yield Extracted(origin, block)
        elif not was_endless:
            yield Unreadable(origin, "too large", f"a word of more than {BLOCK // MEBIBYTE} million characters")
        was_endless = is_endless


_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)


def read_markdown(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the text of a Markdown file without its front matter.

    The markup is kept, because models should learn it.
    """
    for found in read_plain_text(path, stream, reading):
        if isinstance(found, Extracted):
            found = replace(found, text=_FRONT_MATTER.sub("", found.text.replace("\r\n", "\n")))
        yield found
