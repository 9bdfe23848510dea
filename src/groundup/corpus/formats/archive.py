"""Read zip and tar archives. Each member is treated like a file in a directory that has the name of the archive."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from typing import BinaryIO, cast

from groundup.corpus.formats.base import Found, ReaderContext, Unreadable
from groundup.corpus.sources.archive import is_unsafe
from groundup.corpus.streams import as_seekable, limited_stream


def read_archive(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the texts of all members of an archive, except hidden files."""
    stream = as_seekable(stream)
    magic = stream.read(2)  # zipfile.is_zipfile would also accept a tar archive that ends with a zip archive
    stream.seek(0)
    yield from (_read_zip if magic == b"PK" else _read_tar)(path, stream, reading)


def _read_zip(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    with zipfile.ZipFile(stream) as file:
        for member in file.infolist():
            if member.is_dir() or _is_hidden(member.filename):
                continue
            inner = f"{path}/{member.filename}"
            if is_unsafe(member.filename):
                yield Unreadable(inner, "unsafe path")
            elif member.flag_bits & 1:
                yield Unreadable(inner, "encrypted")
            elif stat.S_ISLNK(member.external_attr >> 16):
                yield Unreadable(inner, "not a regular file")
            else:
                try:
                    opened = file.open(member)
                # The compression method of the member is unknown, or its header is damaged.
                except (RuntimeError, zipfile.BadZipFile) as error:
                    reason = "damaged" if isinstance(error, zipfile.BadZipFile) else "unknown compression"
                    yield Unreadable(inner, reason, str(error))
                    continue
                with opened:
                    yield from reading.inside(inner, limited_stream(cast(BinaryIO, opened), reading.budget))


def _read_tar(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # saves memory, because tarfile would keep every member
            if member.isdir() or _is_hidden(member.name):
                continue
            inner = f"{path}/{member.name}"
            if is_unsafe(member.name):
                yield Unreadable(inner, "unsafe path")
            elif not member.isreg():
                yield Unreadable(inner, "not a regular file")
            else:  # the size limit protects against sparse members, which may declare a size of terabytes
                yield from reading.inside(
                    inner, limited_stream(cast(BinaryIO, tar.extractfile(member)), reading.budget)
                )


def _is_hidden(name: str) -> bool:
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))
