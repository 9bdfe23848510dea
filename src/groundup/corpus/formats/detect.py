"""Detect the format of a file by its content, and by its name only if the content is ambiguous."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import zipfile
from pathlib import PurePosixPath
from typing import BinaryIO

from groundup.corpus.formats.base import UnknownFormatError
from groundup.corpus.formats.chat import is_messenger_export
from groundup.corpus.sources.base import Format
from groundup.corpus.streams import COMPRESSED, detect_encoding, looks_binary

HEAD = 1 << 16  # number of bytes from which text formats are detected

_SUFFIXES: dict[str, Format] = {
    "": "text", ".txt": "text", ".text": "text", ".rst": "text",
    ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".xlsx": "xlsx", ".xlsm": "xlsx",
    ".pdf": "pdf", ".docx": "docx", ".odt": "odt", ".epub": "epub",
    ".eml": "email", ".mbox": "mbox", ".mbx": "mbox", ".zip": "archive", ".tar": "archive",
}  # fmt: skip
_SUFFIX = re.compile(r"\.[^\W\d][\w+~-]*")

_PROGRAMS = {  # suffixes of source code and configuration files, whose comments may look like prose
    ".py", ".pyi", ".pyx", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".css", ".scss", ".c", ".h", ".cc", ".cpp",
    ".hpp", ".java", ".kt", ".go", ".rs", ".rb", ".php", ".pl", ".pm", ".sh", ".ps1", ".sql", ".lua", ".r",
    ".swift", ".scala", ".cs", ".hs", ".el", ".vim", ".yml", ".yaml", ".toml", ".ini", ".cfg", ".conf",
    ".properties", ".po", ".pot", ".lock", ".svg", ".map", ".ipynb",
}  # fmt: skip
_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"%PDF-", "pdf"),
    (b"PAR1", "parquet"),
    (b"WARC/0.", "warc"),
    (b"WARC/1.", "warc"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_NAMED: tuple[tuple[bytes, str], ...] = (  # first bytes and names of unsupported formats
    (b"{\\rtf", "RTF"),
    (_OLE, "Microsoft Office before 2007 (.doc, .xls, .ppt, .msg)"),
    (b"%!PS", "PostScript"),
    (b"\x89PNG\r\n\x1a\n", "image"), (b"\xff\xd8\xff", "image"), (b"GIF87a", "image"), (b"GIF89a", "image"),
    (b"II*\0", "image"), (b"MM\0*", "image"), (b"BM", "image"), (b"AT&TFORM", "DjVu"),
    (b"ID3", "audio"), (b"fLaC", "audio"), (b"OggS", "audio or video"), (b"RIFF", "audio or video"),
    (b"\x1aE\xdf\xa3", "audio or video"),
    (b"\x7fELF", "program"), (b"MZ", "program"), (b"\xca\xfe\xba\xbe", "program"), (b"\0asm", "program"),
    (b"\xcf\xfa\xed\xfe", "program"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive"), (b"Rar!\x1a\x07", "RAR archive"), (b"SQLite format 3\0", "SQLite"),
    (b"\x80\x02", "pickle"), (b"\x80\x03", "pickle"), (b"\x80\x04", "pickle"), (b"\x80\x05", "pickle"),
    (b"PK\x07\x08", "part of a split zip archive"), (b"LZIP", "lzip"),
    (b"\x04\"M\x18", "LZ4"), (b"\x1f\x9d", "compress (.Z)"),
    (b"\x93NUMPY", "NumPy array"), (b"\0\1\0\0\0", "font"), (b"OTTO", "font"), (b"wOF", "font"),
)  # fmt: skip

_HTML = re.compile(r"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
_PROLOG = re.compile(r"(?:\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>)*", re.DOTALL | re.IGNORECASE)
_ROOT = re.compile(r"<([a-zA-Z][\w.:-]*)")
_HTML_ELEMENT = re.compile(
    r"</?(?:p|div|span|a|br|h[1-6]|table|tr|td|ul|ol|li|em|strong|b|i|img|head|body|title|meta|section|article|pre|font)\b",
    re.IGNORECASE,
)
_ENVELOPE = re.compile(r"From [^\s]{1,200} [^\n]{0,40}\d:\d{2}[^\n]{0,40}\r?\n(?:>?[A-Za-z][\w-]*:|From )")
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*):|[ \t]")
_MAIL_NAMES = {
    "received", "return-path", "delivered-to", "message-id", "date", "from", "to", "subject", "mime-version",
}  # fmt: skip
_JSON_TOKENS = re.compile(r'(?:\s*(?:"(?:[^"\\\n]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}\[\],:]))+')
_FRONT_MATTER = re.compile(r"---\r?\n(?:[A-Za-z_][\w-]*:.*\r?\n|[ \t-].*\r?\n)+(?:---|\.\.\.)\r?\n")
_WORD = re.compile(r"(?<![^\s(\"'“‘])[^\W\d_]{2,}(?:['’-][^\W\d_]+)*(?![^\s,.;:!?)\"'”’])")
_CODE = re.compile(r"[={}\[\]<>_\\|#$*&^%@/;`~+]")


def format_of(path: str) -> Format | None:
    """Return the format that the suffix of a file name indicates.

    Args:
        path: Path of the file. The suffixes .gz, .zst, .bz2 and .xz are ignored.

    Returns:
        The format, or None if the suffix is unknown.
    """
    return _SUFFIXES.get(suffix_of(path))


def suffix_of(path: str) -> str:
    """Return the suffix of a file name in lower case, or "" if the name has no suffix.

    A compression suffix such as ".gz" is ignored.
    """
    stem = path[: path.rindex(".")] if path.lower().endswith(COMPRESSED) else path
    suffix = PurePosixPath(stem).suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""  # the ". 2" in "Vol. 2" is not a suffix


def detect(path: str, head: bytes) -> Format:
    """Detect the format of a file.

    For every zip file, the result is "archive". Use `zip_format` to distinguish documents from archives.

    Args:
        path: Path of the file. The suffix of the path is used if the content is ambiguous.
        head: The first bytes of the file. The head must have at least `HEAD` bytes, or be the whole file.

    Raises:
        UnknownFormatError: The format is unsupported or unknown.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or _is_tar(head[:512]):
        return "archive"
    start = head[:1024].lstrip(b"\0\t\n\r \xef\xbb\xbf")
    for magic, kind in _MAGIC:
        if start.startswith(magic) or (magic == b"%PDF-" and magic in head[:1024] and looks_binary(head[:8192])):
            return kind
    binary = looks_binary(head[:8192])
    if head.startswith(_OLE) and "EncryptedPackage".encode("utf-16-le") in head:
        raise UnknownFormatError("password-protected")
    for magic, name in _NAMED:
        if head.startswith(magic) and (binary or magic.startswith((b"{", b"%"))):
            raise UnknownFormatError(name)
    if binary:
        raise UnknownFormatError("binary")
    sample = head[:HEAD]
    text = sample.decode(detect_encoding(sample), "replace").lstrip("\ufeff")
    return _markup(text) or _structured(text, path, whole=len(head) < HEAD) or _plain(text, path)


def _is_tar(header: bytes) -> bool:
    """Return whether a file that starts with `header` is a tar archive.

    A tar header contains a magic number. A tar header in the format from before 1988 contains only a checksum.
    """
    if header[257:262] == b"ustar":
        return True
    try:
        stored = int(header[148:156].strip(b"\0 "), 8)
    except ValueError:
        return False
    return len(header) == 512 and stored == sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def zip_format(stream: BinaryIO) -> Format:
    """Detect whether a zip file is an office document, an EPUB, or an archive.

    Args:
        stream: The file.

    Raises:
        UnknownFormatError: The file is a document of an unsupported format.
        BadZipFile: The file is damaged.
    """
    with zipfile.ZipFile(stream) as file:
        names = set(file.namelist())
        kind = file.read("mimetype")[:100].decode("ascii", "replace").strip() if _is_small(file, "mimetype") else ""
    if kind == "application/epub+zip" or "META-INF/container.xml" in names:
        return "epub"
    if kind.startswith("application/vnd.oasis.opendocument"):
        if "text" in kind:
            return "odt"
        raise UnknownFormatError(f"OpenDocument {kind.rpartition('.')[2]}")
    if "[Content_Types].xml" in names:
        if any(name.startswith("word/") for name in names):
            return "docx"
        if "xl/workbook.xml" in names:
            return "xlsx"
        raise UnknownFormatError("Excel" if any(name.startswith("xl/") for name in names) else "Office Open XML")
    return "archive"


def _is_small(file: zipfile.ZipFile, name: str) -> bool:
    try:
        member = file.getinfo(name)
    except KeyError:
        return False
    return member.file_size <= 100 and not member.flag_bits & 1


def is_html(text: str) -> bool:
    """Return whether a text starts like an HTML page, regardless of the file name."""
    start = text[:4096].lstrip()
    if not start.startswith("<"):
        return False
    return _root(text) in ("html", "head", "body") or bool(_HTML.match(start))


def _root(text: str) -> str:
    """Return the name of the root element of an XML or HTML text."""
    found = _ROOT.match(text[_match_end(_PROLOG, text) :])
    return found[1].rpartition(":")[2].lower() if found else ""


def _markup(text: str) -> Format | None:
    """Detect HTML and wiki dumps. Raise `UnknownFormatError` for XML in other formats."""
    start = text[:4096].lstrip()
    if start.startswith("filedesc://"):
        raise UnknownFormatError("ARC, the older web archive")
    if not start.startswith("<"):
        return None
    if is_html(text):
        return "html"
    name = _root(text)
    if name == "mediawiki":
        return "wiki"
    if start.startswith("<?xml"):
        raise UnknownFormatError(f"XML <{name}>" if name else "XML")
    return None


def _match_end(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.match(text)
    return found.end() if found else 0


def _structured(text: str, path: str, *, whole: bool) -> Format | None:
    """Detect e-mail, JSON, tables and chat exports. The checks are stricter if the suffix does not match the format."""
    named = format_of(path)
    start = text.lstrip()
    if _ENVELOPE.match(start):
        return "mbox"
    if named not in ("csv", "tsv") and _is_email(start):
        return "email"
    if start.startswith(("{", "[")) and (kind := _json(start, whole=whole, named=named)):
        return kind
    if named in ("csv", "tsv", "json", "jsonl"):
        return named
    if is_messenger_export(start):
        return "chat"
    return _table(text, whole=whole) if named in ("text", None) else None


def _is_email(start: str) -> bool:
    headers = itertools.takewhile(bool, map(_HEADER.match, start.split("\n")))
    names = {header[1].lower() for header in headers if header and header[1]}
    return len(names & _MAIL_NAMES) >= 3 or ("message-id" in names and "from" in names)


def _json(start: str, *, whole: bool, named: Format | None) -> Format | None:
    """Detect JSON and JSON Lines; return None for other text."""
    first, _, rest = start.partition("\n")
    if _parses(first):
        more = rest.lstrip()
        if more.startswith(("{", "[")) or (named == "jsonl" and not more):
            return "jsonl"
        return None if more else "json"
    if whole:
        return "json" if _parses(start) else None
    tokens = _JSON_TOKENS.match(start, 0, 4096)  # the JSON value is longer than `start`
    looks_right = tokens is not None and (tokens.end() > 4000 or start[tokens.end() :].lstrip()[:1] in ("", '"'))
    return (named if named in ("json", "jsonl", "csv", "tsv") else "json") if looks_right else None


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _table(text: str, *, whole: bool) -> Format | None:
    """Detect CSV and TSV in a file whose suffix does not indicate a table.

    All rows must have the same number of cells, and the first row must consist of short, distinct column names.
    """
    lines = text.splitlines()[:50] if whole else text.splitlines()[:-1][:50]
    if len(lines) < 4:
        return None
    for delimiter, min_columns in (("\t", 2), (",", 3), (";", 3)):
        rows = [row for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter) if row]
        if len(rows) < 4 or len(rows[0]) < min_columns or len({len(row) for row in rows[:-1]}) > 1:
            continue
        names = [name.strip() for name in rows[0]]
        if all(re.fullmatch(r"[^\W\d][\w .()/-]{0,40}", name) for name in names) and len(set(names)) == len(names):
            return "tsv" if delimiter == "\t" else "csv"
    return None


def _plain(text: str, path: str) -> Format:
    """Detect HTML fragments, Markdown and plain text."""
    named = format_of(path)
    tags = {tag[0].lower() for tag in _HTML_ELEMENT.finditer(text)}
    if named == "html":
        return "html" if tags else "text"
    if named != "markdown" and text.lstrip().startswith("<") and len(tags) >= 2:
        return "html"
    if named == "markdown" or _FRONT_MATTER.match(text):
        return "markdown"
    if named is None and (suffix_of(path) in _PROGRAMS or not _is_prose(text)):
        raise UnknownFormatError(suffix_of(path))
    return "text"


def _is_prose(text: str) -> bool:
    """Return whether a text is prose, not code or configuration."""
    lines = [line for line in itertools.islice(text.splitlines(), 500) if line.strip()]
    if not lines:
        return False
    words = sum(len(_WORD.findall(line)) for line in lines)
    symbols = sum(len(_CODE.findall(line)) for line in lines)
    return words >= 20 and words >= 5 * len(lines) and symbols * 50 <= sum(map(len, lines))
