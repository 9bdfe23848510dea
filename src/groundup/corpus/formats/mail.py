"""Read e-mail: single messages (.eml, RFC 5322 and MIME) and mailboxes with many messages (mbox, RFC 4155)."""

from __future__ import annotations

import email
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import BinaryIO

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.detect import is_html
from groundup.corpus.formats.html import whole_text
from groundup.corpus.streams import (
    MAX_DOCUMENT_BYTES,
    MAX_LINE_BYTES,
    MEBIBYTE,
    TooLargeError,
    detect_encoding,
    read_whole,
)

_SEPARATOR = re.compile(rb"From [^\s]{1,200} [^\n]{0,40}\d:\d{2}[^\n]{0,40}\r?\n")
_BELOW = re.compile(rb">?[A-Za-z][A-Za-z0-9-]*:|>?From |\Z")
_QUOTED = re.compile(r"[ \t]?[>|]")
_ATTRIBUTION = re.compile(
    r"[^\n]{2,200}(?:wrote|writes|said|schrieb|écrit|escribió|scrisse|schreef|napisał|skrev|写道)[^\n]{0,40}:\s*"
)
_ORIGINAL = re.compile(
    r"-{2,}\s?(?:Original Message|Ursprüngliche Nachricht|Message d'origine|Mensaje original)\s?-{2,}"
)
_FROM = re.compile(r"\*?(?:From|Von|De|Da|Van|Från|Fra|От):\*? ")
_SENT = re.compile(r"\*?(?:Sent|Date|Gesendet|Envoyé|Enviado(?: el)?|Inviato|Verzonden|Skickat|Sendt|Отправлено):\*? ")
_MAX_PARTS = 1000
_READ_SIZE = MAX_LINE_BYTES + 1
_TOO_LARGE = f"more than {MAX_DOCUMENT_BYTES // MEBIBYTE} MiB per message or {MAX_LINE_BYTES // MEBIBYTE} MiB per line"


def read_email(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the subject and body of a message without quoted text, and then the texts of its attachments."""
    yield from _read_message(path, read_whole(stream), reading)


def read_mbox(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield all messages of a mailbox."""
    for number, data in enumerate(_messages(stream), start=1):
        origin = f"{path}#{number}"
        if data is None:
            yield Unreadable(origin, "too large", _TOO_LARGE)
            continue
        try:
            yield from _read_message(origin, data, reading)
        except RecursionError:
            yield Unreadable(origin, "too deeply nested")
        except TooLargeError as error:
            yield Unreadable(origin, "too large", str(error))


def _messages(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield the bytes of each message in a mailbox, or None for a message that exceeds the size limit.

    A line that starts with "From " separates two messages, but only if the line contains a time of day and a mail
    header follows.
    """
    lines: list[bytes] = []
    size, after_blank, begun = 0, True, False
    line, following = stream.readline(_READ_SIZE), stream.readline(_READ_SIZE)
    while line:
        if after_blank and _SEPARATOR.fullmatch(line) and _BELOW.match(following):
            if begun and lines:
                yield b"".join(lines) if size <= MAX_DOCUMENT_BYTES else None
            lines, size, begun = [], 0, True
        else:
            size += len(line) if len(line) < _READ_SIZE else MAX_DOCUMENT_BYTES + 1
            if size > MAX_DOCUMENT_BYTES:
                lines = [b""]
            else:
                lines.append(line[1:] if re.match(rb">+From ", line) else line)
        after_blank = not line.strip()
        line, following = following, stream.readline(_READ_SIZE)
    if lines:
        yield b"".join(lines) if size <= MAX_DOCUMENT_BYTES else None


def _read_message(path: str, data: bytes, reading: ReaderContext) -> Found:
    message = email.message_from_bytes(data)
    bodies: list[str] = []
    attachments: list[tuple[str, bytes]] = []
    for part in _parts(message):
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            continue
        name = _header(part.get_filename() or "")
        if name or part.get_content_maintype() not in ("text", "multipart"):
            attachments.append((name or part.get_content_type().replace("/", "."), content))
        elif part.get_content_subtype() == "html":
            bodies.append(_without_quotes(whole_text(content, _encoding(part, content))))
        else:
            text = content.decode(_encoding(part, content), "replace")
            is_page = is_html(text)  # some programs send HTML as text/plain
            bodies.append(_without_quotes(whole_text(text.encode(), "utf-8") if is_page else _unflowed(part, text)))
    subject = " ".join(_header(_raw(message, "subject"), _first_encoding(message)).split())
    body = "\n\n".join(body for body in bodies if body)
    if body:
        yield Extracted(path, f"{subject}\n\n{body}".strip(), date=_date(message))
    elif not attachments:
        yield Unreadable(path, "no text", subject)
    for number, (name, content) in enumerate(attachments, start=1):
        yield from reading.inside(f"{path}/{number}-{name.replace('/', '_')}", io.BytesIO(content))


def _parts(message: Message) -> Iterator[Message]:
    """Yield the parts of a message that a mail program shows, including the parts of nested messages.

    Of a multipart/alternative part, only the text/plain part is yielded. If the text/plain part is blank, the text/html
    part is yielded.
    """
    stack, count = [message], 0
    while stack and count < _MAX_PARTS:
        part = stack.pop()
        count += 1
        if not part.is_multipart():
            yield part
            continue
        inner = [each for each in part.get_payload() if isinstance(each, Message)]
        if part.get_content_subtype() == "alternative" and inner:
            kinds = {each.get_content_type(): each for each in reversed(inner) if not _is_blank(each)}
            inner = [kinds.get("text/plain") or kinds.get("text/html") or inner[-1]]
        stack += reversed(inner)


def _is_blank(part: Message) -> bool:
    """Return whether a message part is blank. Some mail programs send a blank text/plain part with an HTML part."""
    content = None if part.is_multipart() else part.get_payload(decode=True)
    return isinstance(content, bytes) and not content.strip()


def _encoding(part: Message, content: bytes) -> str:
    declared = str(part.get_content_charset("") or "")
    try:
        if declared and declared not in ("us-ascii", "unknown-8bit", "x-unknown"):
            content.decode(declared, "replace")
            return declared
    except (LookupError, ValueError):
        declared = ""
    return detect_encoding(content, html=part.get_content_subtype() == "html")


def _unflowed(part: Message, text: str) -> str:
    """Join the wrapped lines of paragraphs in a message with format=flowed (RFC 3676)."""
    if str(part.get_param("format", "")).lower() != "flowed":
        return text
    # The parameter "delsp" is used for languages that do not put spaces between words.
    joint = "" if str(part.get_param("delsp", "")).lower() == "yes" else " "
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        line = line.removeprefix(" ")  # space-stuffing
        if (
            lines
            and lines[-1].endswith(" ")
            and lines[-1] != "-- "
            and line.startswith(">") == lines[-1].startswith(">")
        ):
            lines[-1] = lines[-1][:-1] + joint + (line.lstrip("> ") if line.startswith(">") else line)
        else:
            lines.append(line)
    return "\n".join(lines)


def _without_quotes(text: str) -> str:
    """Return the body of an e-mail without quoted messages, their attribution lines, and the signature."""
    kept: list[str] = []
    lines = text.replace("\r\n", "\n").split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        starts_quote = _ORIGINAL.match(line.strip()) or (_FROM.match(line) and _SENT.match(following))
        if line in ("-- ", "--") or (starts_quote and any(map(str.strip, kept))):
            break
        if not _QUOTED.match(line):
            kept.append(line)
            continue
        while kept and not kept[-1].strip():
            kept.pop()
        for count in (1, 2):  # the attribution line of a quoted message may be broken into two lines
            if _ATTRIBUTION.fullmatch(" ".join(kept[-count:])):
                del kept[-count:]
                break
    return "\n".join(kept).strip()


def _raw(message: Message, name: str) -> str:
    """Return the raw header called `name`. `Message.get` would replace non-ASCII bytes by U+FFFD."""
    return next((str(value) for key, value in message.raw_items() if key.lower() == name), "")


def _first_encoding(message: Message) -> str:
    """Return the encoding that the first text part declares. Headers with raw bytes usually have the same encoding."""
    declared = (part.get_content_charset("") for part in message.walk() if part.get_content_maintype() == "text")
    return next((str(each) for each in declared if each), "")


def _header(value: object, encoding: str = "") -> str:
    """Decode a header that consists of RFC 2047 encoded words or of raw bytes.

    Raw bytes are decoded as UTF-8 if they are valid UTF-8, otherwise with `encoding`.
    """
    text = str(value)
    if not text.isascii():
        raw = text.encode("utf-8", "surrogateescape")
        with suppress(LookupError, UnicodeDecodeError):
            text = raw.decode(encoding or detect_encoding(raw))
        with suppress(UnicodeDecodeError):
            text = raw.decode()
    with suppress(LookupError, ValueError, MessageError):
        text = str(make_header(decode_header(text)))
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _date(message: Message) -> str:
    try:
        return parsedate_to_datetime(str(message.get("Date", ""))).isoformat()
    except (TypeError, ValueError, IndexError, OverflowError):
        return ""
