"""The files of a folder and its subfolders, and what becomes of the symbolic links among them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

LEAVES = "symbolic link out of the folder"
TO_FOLDER = "symbolic link to a folder"
TWICE = "symbolic link to what is read anyway"
BROKEN = "broken symbolic link"


class FolderEntry(NamedTuple):
    """A file, or a skipped entry: a link that is not followed, a folder that cannot be listed.

    Attributes:
        refused: why it is not read; "" if it may be.
    """

    name: str
    path: Path
    refused: str = ""


class Walk:
    """One walk through a folder. Hidden names are left out.

    Args:
        root: the folder.
        follow: whether links are followed out of the folder and into other folders. Links to files inside the folder
            always are, unless the file itself is read.
        chooses: whether a file of this name is wanted.
    """

    def __init__(self, root: Path, *, follow: bool, chooses: Callable[[str], bool]) -> None:
        self._root = root
        self._real_root = Path(os.path.realpath(root))
        self._follow = follow
        self._chooses = chooses
        self._seen = {self._real_root}

    def files(self) -> list[FolderEntry]:
        """All of them, in an order that does not depend on the file system.

        Raises:
            OSError: the folder itself cannot be listed.
        """
        return sorted(self._below(self._root))

    def _below(self, folder: Path) -> Iterator[FolderEntry]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            if folder == self._root:
                raise
            yield FolderEntry(self._name(folder), folder)  # what is in it is missing, and must be counted
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
        if not _mode(path):  # dangling, or a loop
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
    """The mode of what a path leads to; 0 if that is nothing, or out of reach."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def require_inside(path: Path, root: Path) -> None:
    """Refuse a file that a link leads to out of the folder, also if the link was made after the folder was listed.

    Raises:
        OSError: it is elsewhere.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise OSError(LEAVES)
