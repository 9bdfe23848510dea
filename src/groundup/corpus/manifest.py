"""The manifest of a corpus, which lists every source file with the digest of its content.

The origin of a document contains the path of its file. The digest shows whether the file has changed since the corpus
was built. The manifest is stored in `manifest/*.parquet` in the directory of the shards.
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
        path: Path of the file in the source. The origin of each document in the file begins with this path.
        bytes: Size of the file in bytes.
        digest: Digest of the file from `SourceConfig.digest`.
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
        A dictionary from the source and origin of each document to its file.
    """
    # An origin such as "a.zip/b.mbox#3" starts with the path of the file. If two paths match, the longer path is used.
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
