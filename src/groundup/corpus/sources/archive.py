"""Read zip archives (wheels, eggs) and tar archives (sdists, npm) of packages without unpacking them to disk."""

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
    """List the files of an archive in archive order. Unsafe members are marked as refused.

    Raises:
        DataError: The archive is damaged, has an unknown format, or is a decompression bomb.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                return [_zip_item(member) for member in file.infolist() if not member.is_dir()]
        return _tar_items(archive)
    except READ_ERRORS as error:
        raise DataError(
            f"{archive.name}: {error}",
            rule="the file is not a readable zip or tar archive",
            fix="Download the archive again (for a package, run `groundup cache clear` first), or use another version.",
        ) from error


def open_members(archive: Path, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
    """Yield each member with a function that opens the member. Call the function before the next iteration."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for item in items:
                yield item, cast(Opener, partial(file.open, item.path))
        return
    pending = {item.path: item for item in items}
    # Reads the archive in one pass, because a compressed tar has no random access.
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.name in pending:
                yield pending.pop(member.name), partial(_open_tar_member, tar, member)
            if not pending:
                return


def _open_tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    stream = tar.extractfile(member)
    if stream is None:
        raise OSError(f"{member.name} is not a regular file")
    return cast(BinaryIO, stream)


def is_unsafe(path: str) -> bool:
    """Return whether the path of an archive member is unsafe: an absolute path, or a path with a drive or `..`."""
    return path.startswith(("/", "\\")) or ":" in path or "\0" in path or ".." in path.replace("\\", "/").split("/")


def _zip_item(member: zipfile.ZipInfo) -> Item:
    refused = "unsafe path" if is_unsafe(member.filename) else ""
    if stat.S_ISLNK(member.external_attr >> 16):  # a symbolic link
        refused = refused or "not a regular file"
    if not refused and member.file_size > bomb_limit(member.compress_size):
        refused = "decompression bomb"
    return Item(member.filename, member.file_size, refused)


def _tar_items(archive: Path) -> list[Item]:
    found: dict[str, Item] = {}
    remaining = bomb_limit(archive.stat().st_size)
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            remaining -= member.size
            if remaining < 0:
                raise DecompressionBombError(f"the archive unpacks to more than {MAX_COMPRESSION_RATIO} times its size")
            if member.isdir():
                continue
            refused = "unsafe path" if is_unsafe(member.name) else "" if member.isreg() else "not a regular file"
            found.setdefault(member.name, Item(member.name, member.size, refused))
    return list(found.values())
