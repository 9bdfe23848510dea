"""The files of a pinned package archive as a text source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.files import cache_dir
from groundup.corpus.download import Digest
from groundup.corpus.sources import npm, pypi
from groundup.corpus.sources.archive import list_members, open_members
from groundup.corpus.sources.base import Item, Opener, SourceConfig

# Suffixes of directories with package metadata, which is text but not prose.
_METADATA = (".dist-info", ".egg-info")
_PACKAGE = re.compile(r"(@[\w.~-]+/)?[A-Za-z0-9_.~-]+")
_VERSION = re.compile(r"[A-Za-z0-9_.+!-]+")


class PackageSource(SourceConfig):
    """The files of a PyPI or npm archive, which is downloaded and read, but never installed or executed."""

    kind: Literal["package"] = setting("package", help="an archive from a package index")
    index: Literal["pypi", "npm"] = setting("pypi", help="package index")
    package: str = setting(help="package name")
    version: str = setting(help="exact version")
    hash: str | None = setting(None, help="sha256 of the archive (PyPI), or integrity value of the archive (npm)")
    license: str = setting(help="license of the text, shown in the data card")

    @field_validator("package")
    @classmethod
    def _check_package(cls, value: str) -> str:
        if not _PACKAGE.fullmatch(value):
            raise ValueError(
                'a package name has letters, digits, ".", "_" and "-"; on npm, it may also be "@scope/name"'
            )
        return value

    @field_validator("version")
    @classmethod
    def _check_version(cls, value: str) -> str:
        if not _VERSION.fullmatch(value):
            raise ValueError('must be an exact version such as "1.2.0", not a range or "latest"')
        return value

    @field_validator("hash")
    @classmethod
    def _check_hash(cls, value: str | None) -> str | None:
        if value is not None:
            Digest.parse(value)
        return value

    @property
    def default_name(self) -> str:
        """The package name."""
        return self.package

    @property
    def _digest(self) -> Digest | None:
        return Digest.parse(self.hash) if self.hash else None

    def identity(self) -> str:
        """Return the hash that the recipe pins, or ""."""
        return self.hash or ""

    @property
    def _directory(self) -> Path:
        # The cache path also contains the release. Otherwise, a cached archive of another release would be accepted if
        # the recipe pins the hash of that archive.
        release = f"{self.index}-{self.package.replace('/', '+')}=={self.version}"
        return cache_dir() / "downloads" / release / (self._digest.value[:32] if self._digest else "unpinned")

    def _stored(self) -> Path | None:
        """Return the verified archive in the cache, or None. A file that is not verified has another suffix."""
        unfinished = (".part", ".tmp", ".lock")
        found = (p for p in self._directory.glob("*") if p.is_file() and not p.name.endswith(unfinished))
        return next(found, None) if self._digest else None

    def fetch(self, console: Console) -> None:
        """Download the archive into the cache, unless the cache already contains a valid copy."""
        stored, digest = self._stored(), self._digest
        if stored and digest and digest.matches(stored):
            return
        if stored:  # damaged
            stored.unlink()
        fetch_archive = {"pypi": pypi.fetch_pypi_archive, "npm": npm.fetch_npm_archive}[self.index]
        fetch_archive(self.package, self.version, digest, self._directory, console)

    @property
    def archive(self) -> Path:
        """The path of the archive in the cache. Call `fetch` first."""
        archive = self._stored()
        assert archive is not None, "call fetch() first"
        return archive

    def items(self) -> list[Item]:
        """Return the archive members that match the patterns in `files`, in archive order."""
        archive = self.archive
        members = list_members(archive)
        chosen = [item for item in members if self.chooses(item.path)]
        if not self.files:
            chosen = [item for item in chosen if not any(part.endswith(_METADATA) for part in item.path.split("/"))]
        if not chosen:
            raise DataError(
                f"{self.package} {self.version}: no file matches {self.files}",
                rule=f"{archive.name} contains {len(members)} files, such as " + ", ".join(m.path for m in members[:5]),
                fix="Correct the patterns in `files`.",
            )
        return chosen

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Yield each archive member with a function that opens the member."""
        return open_members(self.archive, items)

    def provenance(self) -> dict[str, str]:
        """Return the names of the package and of the archive, and the hash of the archive."""
        return {
            "package": f"{self.index}:{self.package}=={self.version}",
            "archive": self.archive.name,
            "hash": self.hash or "",
        }
