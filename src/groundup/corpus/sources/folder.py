"""A local directory as a text source."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.corpus.sources.base import Item, Opener, SourceConfig
from groundup.corpus.streams import MEBIBYTE

LEAVES = "symbolic link out of the folder"
TO_FOLDER = "symbolic link to a folder"
TWICE = "symbolic link to a path that is read anyway"
BROKEN = "broken symbolic link"


class FolderEntry(NamedTuple):
    """A file, or a skipped entry (a symbolic link, or a directory that cannot be listed).

    Attributes:
        name: Path relative to the root, with "/" between directories.
        path: Path on disk.
        refused: Reason why the entry is not read, or "" if the entry may be read.
    """

    name: str
    path: Path
    refused: str = ""


class Walk:
    """One traversal of a directory tree, which skips hidden files and directories.

    Args:
        root: The directory.
        follow: Whether to follow symbolic links to directories and symbolic links that leave the root. A link to a file
            inside the root is always followed, unless the file itself is also read.
        chooses: Function that returns whether to include the file with a given relative path.
    """

    def __init__(self, root: Path, *, follow: bool, chooses: Callable[[str], bool]) -> None:
        self._root = root
        self._real_root = Path(os.path.realpath(root))
        self._follow = follow
        self._chooses = chooses
        self._seen = {self._real_root}

    def files(self) -> list[FolderEntry]:
        """Return all files, sorted by name.

        Raises:
            OSError: The root cannot be listed.
        """
        return sorted(self._below(self._root))

    def _below(self, folder: Path) -> Iterator[FolderEntry]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            if folder == self._root:
                raise
            # A directory that cannot be listed is counted as one unreadable entry.
            yield FolderEntry(self._name(folder), folder)
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                yield from self._link(path)
            elif entry.is_dir(follow_symlinks=False):
                yield from self._below(path)
            elif self._chooses(self._name(path)):
                yield FolderEntry(self._name(path), path)

    def _link(self, path: Path) -> Iterator[FolderEntry]:
        name = self._name(path)
        if stat.S_ISDIR(_mode(path)):
            yield from self._folder_link(name, path)
        elif self._chooses(name):
            yield FolderEntry(name, path, self._refusal(path))

    def _folder_link(self, name: str, path: Path) -> Iterator[FolderEntry]:
        target = Path(os.path.realpath(path))
        if not self._follow:
            yield FolderEntry(name, path, TO_FOLDER)
        elif target in self._seen or self._inside(target) or self._real_root.is_relative_to(target):
            yield FolderEntry(name, path, TWICE)
        else:
            self._seen.add(target)
            yield from self._below(path)

    def _refusal(self, path: Path) -> str:
        target = Path(os.path.realpath(path))
        if not _mode(path):  # the symbolic link is broken or part of a loop
            return BROKEN
        if not self._inside(target):
            return "" if self._follow else LEAVES
        inside = target.relative_to(self._real_root)
        hidden = any(part.startswith(".") for part in inside.parts)
        return TWICE if not hidden and self._chooses(inside.as_posix()) else ""

    def _inside(self, target: Path) -> bool:
        return target.is_relative_to(self._real_root)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _mode(path: Path) -> int:
    """Return the file mode of the target of a path, or 0 if the target does not exist or is not accessible."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def require_inside(path: Path, root: Path) -> None:
    """Check that a path resolves to a file inside `root`.

    A symbolic link may have been created after the files were listed.

    Raises:
        OSError: The path resolves to a file outside `root`.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise OSError(LEAVES)


_ARCHIVES = (".warc", ".warc.gz", ".wet", ".wet.gz")


class FolderSource(SourceConfig):
    """All files in a directory and its subdirectories, except hidden files.

    By default, symbolic links to directories and to targets outside the directory are skipped and counted. Symbolic
    links to files that are read anyway are always skipped and counted.
    """

    kind: Literal["folder"] = setting("folder", help="a local directory")
    path: Path = setting(help="path of a directory or of a single file")
    follow_symlinks: bool = setting(
        False, help="follow symbolic links to directories and to targets outside `path`; default: skip and count them"
    )
    license: str = setting("private", help="license of the text, shown in the data card")

    @property
    def default_name(self) -> str:
        """The name of the directory."""
        return _printable(self.path.resolve().name) or "folder"

    def _files(self) -> list[FolderEntry]:
        """Return the files, sorted by name.

        Raises:
            DataError: The directory does not exist or cannot be listed.
        """
        if not self.path.exists():
            raise DataError(
                f"{self.path}: no such file or directory",
                fix="Check the path.",
            )
        if self.path.is_file():
            return [FolderEntry(self.path.name, self.path)]
        try:
            return Walk(self.path, follow=self.follow_symlinks, chooses=self.chooses).files()
        except OSError as error:  # the root cannot be listed; a subdirectory that cannot be listed is only counted
            raise DataError(
                f"{self.path}: {error.strerror}",
                fix="Check the permissions, or run the command as a user with read access.",
            ) from error

    def identity(self) -> str:
        """Return a digest of the names, sizes and modification times of the files."""
        digest = hashlib.blake2b(digest_size=16)
        for name, path, refused in self._files():
            try:
                status = path.lstat() if refused else path.stat()
            except OSError:
                continue
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def fetch(self, console: Console) -> None:
        """Do nothing: the files are local."""

    def items(self) -> list[Item]:
        """Return the files, sorted by name."""
        found = [_item(each) for each in self._files()]
        if not found:
            patterns = f" that match {self.files}" if self.files else ""
            raise DataError(
                f"{self.path}: no files{patterns}",
                fix="Check the path and the patterns in `files`.",
            )
        return found

    def parts(self, item: Item, size: int) -> list[Item]:
        """Split a web archive into parts. Files of other formats are not split."""
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
        """Yield each file with a function that opens the file."""
        for item in items:
            yield item, partial(_open, self._path(item), None if self.follow_symlinks else self._root)

    @property
    def _root(self) -> Path | None:
        return None if self.path.is_file() else self.path

    def _path(self, item: Item) -> Path:
        return self.path if self.path.is_file() else self.path / item.path

    def digest(self, item: Item) -> str:
        """Return the SHA-256 of a file."""
        if item.refused:
            return ""
        try:
            with self._path(item).open("rb") as file:
                return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError:  # reading the file will also fail and will count the file as unreadable
            return ""

    def provenance(self) -> dict[str, str]:
        """Return only the name of the directory, because the full path may be private."""
        return {"folder": _printable(self.path.resolve().name)}


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()  # file names on disk may be invalid Unicode


def _item(found: FolderEntry) -> Item:
    name, path, refused = found
    if refused:
        return Item(name, 0, refused=refused)
    try:
        status = path.stat()
    except OSError as error:  # the file was deleted, or access to its directory is denied
        closed = isinstance(error, PermissionError)
        return Item(name, 0, refused="permission denied" if closed else "not a regular file")
    if stat.S_ISDIR(status.st_mode):
        return Item(name, 0, refused="permission denied")
    if not stat.S_ISREG(status.st_mode):  # reading a socket or a pipe would block
        return Item(name, 0, refused="not a regular file")
    return Item(name, status.st_size)


def _open(path: Path, root: Path | None) -> BinaryIO:
    if root is not None:
        require_inside(path, root)
    return path.open("rb")
