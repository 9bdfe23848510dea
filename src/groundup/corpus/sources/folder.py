"""A folder on this machine as a source of text."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.corpus.sources.base import Item, Opener, SourceConfig
from groundup.corpus.sources.walk import FolderEntry, Walk, require_inside
from groundup.corpus.streams import MEBIBYTE

_ARCHIVES = (".warc", ".warc.gz", ".wet", ".wet.gz")


class FolderSource(SourceConfig):
    """All files of a folder and its subfolders; hidden ones are left out.

    Symbolic links to folders, out of the folder, and to files that are read anyway are not followed, and counted.
    """

    kind: Literal["folder"] = setting("folder", help="a folder on this machine")
    path: Path = setting(help="the folder (or one file)")
    follow_symlinks: bool = setting(
        False, help="follow symbolic links out of the folder and into other folders [default: count them as skipped]"
    )
    licence: str = setting("private", help="licence of the text, for the data card")

    @property
    def default_name(self) -> str:
        """The folder's own name."""
        return _printable(self.path.resolve().name) or "folder"

    def _files(self) -> list[FolderEntry]:
        """The files, by name.

        Raises:
            DataError: no such folder, or one that cannot be listed.
        """
        if not self.path.exists():
            raise DataError(
                f"{self.path}: no such file or folder",
                rule="a source of kind folder names a folder, or one file, on this machine",
                fix="Check the path.",
            )
        if self.path.is_file():
            return [FolderEntry(self.path.name, self.path)]
        try:
            return Walk(self.path, follow=self.follow_symlinks, chooses=self.chooses).files()
        except OSError as error:  # a closed subfolder is no reason to stop
            raise DataError(
                f"{self.path}: {error.strerror}",
                rule="the folder must be readable",
                fix="Check its permissions, or run as a user who may read it.",
            ) from error

    def identity(self) -> str:
        """Digest of the listing: names, sizes and times of change."""
        digest = hashlib.blake2b(digest_size=16)
        for name, path, refused in self._files():
            try:
                status = path.lstat() if refused else path.stat()
            except OSError:
                continue
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def fetch(self, console: Console) -> None:
        """Nothing to do: the text is here."""

    def items(self) -> list[Item]:
        """The files, by name."""
        found = [_item(each) for each in self._files()]
        if not found:
            wanted = f" that match {self.files}" if self.files else ""
            raise DataError(
                f"{self.path}: no files{wanted}",
                rule="a source needs at least one file",
                fix="Check the path and the patterns in `files`.",
            )
        return found

    def parts(self, item: Item, size: int) -> list[Item]:
        """Web archives can be entered at any record."""
        if item.size < 2 * size or item.refused or not item.path.lower().endswith(_ARCHIVES):
            return [item]
        from groundup.corpus.formats.warc import by_record

        with _open(self._path(item), None) as stream:
            if not by_record(stream.read(MEBIBYTE)):
                return [item]
        count = item.size // size
        bounds = [item.size * number // count for number in range(count + 1)]
        return [replace(item, start=start, end=end) for start, end in pairwise(bounds)]

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Give each file with the call that opens it."""
        for item in items:
            yield item, partial(_open, self._path(item), None if self.follow_symlinks else self._root)

    @property
    def _root(self) -> Path | None:
        return None if self.path.is_file() else self.path

    def _path(self, item: Item) -> Path:
        return self.path if self.path.is_file() else self.path / item.path

    def digest(self, item: Item) -> str:
        """SHA-256 of the file's bytes."""
        if item.refused:
            return ""
        try:
            with self._path(item).open("rb") as file:
                return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError:  # reading it will fail as well, and be counted
            return ""

    def provenance(self) -> dict[str, str]:
        """The folder's name; its full path may be private and stays out of the card."""
        return {"folder": _printable(self.path.resolve().name)}


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()  # names on disk need not be valid Unicode


def _item(found: FolderEntry) -> Item:
    name, path, refused = found
    if refused:
        return Item(name, 0, refused=refused)
    try:
        status = path.stat()
    except OSError as error:  # gone meanwhile, or a folder that may be listed but not entered
        closed = isinstance(error, PermissionError)
        return Item(name, 0, refused="permission denied" if closed else "not a regular file")
    if stat.S_ISDIR(status.st_mode):
        return Item(name, 0, refused="permission denied")
    if not stat.S_ISREG(status.st_mode):  # a socket, a pipe: reading one would hang
        return Item(name, 0, refused="not a regular file")
    return Item(name, status.st_size)


def _open(path: Path, root: Path | None) -> BinaryIO:
    if root is not None:
        require_inside(path, root)
    return path.open("rb")
