"""The manifest of a corpus: every file that was read, with the digest of its bytes.

With it the way back from a document goes down to the byte: its origin names the file, and the digest tells whether a
file that is found today is still that one. It is written beside the shards, as `manifest/*.parquet`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from groundup.corpus.rows import read_rows

MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: inside the source; the origins of its documents begin with it.
        bytes: as stored.
        digest: as `SourceConfig.digest` tells it.
    """

    source: str
    path: str
    bytes: int
    digest: str


def files_of(corpus: Path, origins: Iterable[tuple[str, str]]) -> dict[tuple[str, str], SourceFile]:
    """The files that documents came from.

    Args:
        origins: source and origin of each.

    Returns:
        By source and origin; what a corpus of an earlier release does not know is left out.
    """
    wanted = set(origins)
    # An origin goes on after the file's path: "a.zip/b.mbox#3". Of two paths that fit, the longer one is the file.
    found: dict[tuple[str, str], SourceFile] = {}
    by_prefix: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for source, origin in wanted:
        for end in range(1, len(origin) + 1):
            by_prefix.setdefault((source, origin[:end]), []).append((source, origin))
    for file in read_rows(sorted((corpus / MANIFEST).glob("*.parquet")), SourceFile):
        for key in by_prefix.get((file.source, file.path), []):
            if key not in found or len(found[key].path) < len(file.path):
                found[key] = file
    return found
