"""The texts that are scored and learned from: of a corpus, of token shards, or of a user's files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from groundup.artifact import ARTIFACT
from groundup.corpus import FolderSource, read_documents
from groundup.corpus.given import given_texts
from groundup.tokenizer import Tokenizer
from groundup.tokens import TokenShards
from groundup.types import Split


def split_texts(directory: Path, split: Split, max_bytes: int) -> Iterator[str]:
    """Texts of one split of a corpus, or of token shards, about `max_bytes` of them at most.

    Where there are more, every k-th document is taken. Their order is that of a hash, so this is a fair
    sample, and the same one each time.

    Raises:
        DataError: neither a corpus nor token shards, or nothing of this split in it.
    """
    total = sum(len(text.encode("utf-8")) for text in _all_texts(directory, split))
    yield from islice(_all_texts(directory, split), 0, None, max(1, -(-total // max_bytes)))


def _all_texts(directory: Path, split: Split) -> Iterator[str]:
    kept = directory / "tokenizer"
    if not kept.is_dir():
        return (document.text for document in read_documents(directory, split))
    shards, tokenizer = TokenShards(directory, split), Tokenizer.load(kept)
    return (tokenizer.decode(shards.document(index).tolist()) for index in range(shards.n_documents))


def read_texts(path: Path) -> Iterator[str]:
    """The texts of a file, or of all files of a folder, in every format that a source of a corpus may have.

    Raises:
        DataError: nothing there, or no text in it.
    """
    return given_texts(path, "bits per byte need text to score")


def texts_identity(path: Path) -> str:
    """A value that changes when the texts of `read_texts` do."""
    return FolderSource(path=path).identity()


def general_texts(path: Path, max_bytes: int, *, split: Split = "validation") -> list[str]:
    """About `max_bytes` of one split of a corpus or of token shards, or of the texts of a file or a folder.

    Texts are taken from everywhere among them, and of each its beginning.
    """
    if (path / ARTIFACT).is_file():
        found = list(split_texts(path, split, max_bytes))
    else:
        found = list(read_texts(path))
        total = sum(len(text.encode("utf-8")) for text in found)
        found = found[:: max(1, -(-total // max_bytes))]
    # One book among letters must not be all that is read.
    most, room, kept = max(1, 4 * max_bytes // len(found)), max_bytes, []
    for text in found:
        kept.append(text[: min(most, room)])
        room -= len(kept[-1].encode("utf-8"))
        if room <= 0:
            break
    return kept
