"""A folder on this machine as a source of text."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from groundup.config import setting
from groundup.console import Console
from groundup.corpus.sources.base import Item, Opener, SourceConfig
from groundup.errors import DataError


class FolderSource(SourceConfig):
    """All files of a folder and its subfolders; hidden ones and symbolic links to folders are left out."""

    kind: Literal["folder"] = setting("folder", help="a folder on this machine")
    path: Path = setting(help="the folder (or one file)")
    licence: str = setting("private", help="licence of the text, for the data card")

    @property
    def default_name(self) -> str:
        """The folder's own name."""
        return _printable(self._root.resolve().name) or "folder"

    @property
    def _root(self) -> Path:
        return self.path.expanduser()

    def _files(self) -> Iterator[tuple[str, Path]]:
        """(name inside the source, path), in an order that does not depend on the file system."""
        if not self._root.exists():
            raise DataError(
                f"{self.path}: no such folder",
                rule="a source of kind folder names a folder on this machine",
                fix="Check the path.",
            )
        if self._root.is_file():
            yield self._root.name, self._root
            return
        found = []
        for directory, folders, names in os.walk(self._root, onerror=self._refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(directory, name) for name in names if not name.startswith(".")]
        named = ((path.relative_to(self._root).as_posix(), path) for path in found)
        yield from sorted((name, path) for name, path in named if self.chooses(name))

    def _refuse(self, error: OSError) -> None:
        if Path(error.filename) == self._root:  # a closed subfolder is no reason to stop
            raise DataError(
                f"{self.path}: {error.strerror}",
                rule="the folder must be readable",
                fix="Check its permissions, or run as a user who may read it.",
            ) from error

    def identity(self) -> str:
        """Digest of the listing: names, sizes and times of change."""
        digest = hashlib.blake2b(digest_size=16)
        for name, path in self._files():
            try:
                status = path.stat()
            except OSError:
                continue
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def fetch(self, console: Console) -> None:
        """Nothing to do: the text is here."""

    def items(self) -> list[Item]:
        """The files, by name."""
        found = []
        for name, path in self._files():
            if path.is_file():
                found.append(Item(name, path.stat().st_size))
            else:  # a socket, a pipe (reading one would hang), a broken link
                found.append(Item(name, 0, refused="not a regular file"))
        if not found:
            wanted = f" that match {self.files}" if self.files else ""
            raise DataError(
                f"{self.path}: no files{wanted}",
                rule="a source needs at least one file",
                fix="Check the path and the patterns in `files`.",
            )
        return found

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Give each file with the call that opens it."""
        for item in items:
            path = self._root if self._root.is_file() else self._root / item.path
            yield item, partial(_open, path)

    def provenance(self) -> dict[str, str]:
        """The folder's name; its full path may be private and stays out of the card."""
        return {"folder": _printable(self._root.resolve().name)}


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()  # names on disk need not be valid Unicode


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
