"""The manifest of a corpus: every source file with the digest of its content.

The origin of a document names its file, and the digest shows whether that file has changed since. The manifest is
stored next to the shards as `manifest/*.parquet`.
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
        source: Name of the source.
        path: Path inside the source, a prefix of the origins of its documents.
        bytes: Stored size.
        digest: Result of `SourceConfig.digest`.
    """

    source: str
    path: str
    bytes: int
    digest: str


def files_of(corpus: Path, origins: Iterable[tuple[str, str]]) -> dict[tuple[str, str], SourceFile]:
    """Find the files that documents come from.

    Args:
        corpus: Directory of the corpus.
        origins: Source and origin of each document.

    Returns:
        The files by source and origin. A corpus of an earlier release may lack some.
    """
    # An origin starts with the path of the file: "a.zip/b.mbox#3". If two paths match, the longer one is the file.
    found: dict[tuple[str, str], SourceFile] = {}
    by_prefix: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for source, origin in set(origins):
        for end in range(1, len(origin) + 1):
            by_prefix.setdefault((source, origin[:end]), []).append((source, origin))
    for file in read_rows(sorted((corpus / MANIFEST).glob("*.parquet")), SourceFile):
        for key in by_prefix.get((file.source, file.path), []):
            if key not in found or len(found[key].path) < len(file.path):
                found[key] = file
    return found
