"""Package archives, read in place: zip (wheels, eggs), tar (sdists, npm). Nothing is unpacked to disk."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from groundup.core.errors import DataError
from groundup.corpus.sources.base import Item, Opener
from groundup.corpus.streams import MAX_COMPRESSION_RATIO, READ_ERRORS, DecompressionBombError, bomb_limit


def list_members(archive: Path) -> list[Item]:
    """The files of an archive, in its own order; members with unsafe names or kinds are marked as refused.

    Raises:
        DataError: damaged or truncated, of an unknown kind, or a decompression bomb.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                return [_zip_item(member) for member in file.infolist() if not member.is_dir()]
        return _tar_items(archive)
    except READ_ERRORS as error:
        raise DataError(
            f"{archive.name}: {error}",
            rule="a package archive is a whole zip or tar file",
            fix="Get it again (of a package: `groundup cache clear` first); if that is no help, another version.",
        ) from error


def open_members(archive: Path, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
    """Give each member with the call that opens it, which must happen before the next one is asked for."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for item in items:
                yield item, cast(Opener, partial(file.open, item.path))
        return
    wanted = {item.path: item for item in items}
    with tarfile.open(archive, "r:*") as tar:  # one pass: a compressed tar cannot be entered in the middle
        for member in tar:
            if member.name in wanted:
                yield wanted.pop(member.name), partial(_open_tar_member, tar, member)
            if not wanted:
                return


def _open_tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    stream = tar.extractfile(member)
    if stream is None:
        raise OSError(f"{member.name} is not a regular file")
    return cast(BinaryIO, stream)


def is_unsafe(path: str) -> bool:
    """Whether the name of a member could leave the archive: an absolute path, a drive, a step up."""
    return path.startswith(("/", "\\")) or ":" in path or "\0" in path or ".." in path.replace("\\", "/").split("/")


def _zip_item(member: zipfile.ZipInfo) -> Item:
    refused = "unsafe path" if is_unsafe(member.filename) else ""
    if stat.S_ISLNK(member.external_attr >> 16):  # its content is the path that it leads to
        refused = refused or "not a regular file"
    if not refused and member.file_size > bomb_limit(member.compress_size):
        refused = "decompression bomb"
    return Item(member.filename, member.file_size, refused)


def _tar_items(archive: Path) -> list[Item]:
    found: dict[str, Item] = {}
    left = bomb_limit(archive.stat().st_size)
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            left -= member.size
            if left < 0:
                raise DecompressionBombError(f"unpacks to more than {MAX_COMPRESSION_RATIO} times its size")
            if member.isdir():
                continue
            refused = "unsafe path" if is_unsafe(member.name) else "" if member.isreg() else "not a regular file"
            found.setdefault(member.name, Item(member.name, member.size, refused))
    return list(found.values())
