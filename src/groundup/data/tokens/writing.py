"""Writer of token shards, which contain tokenized documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file, file_digest, require_disk_space, write_json
from groundup.core.types import Split
from groundup.data.tokens.format import FORMAT_VERSION, INDEX, PARTS, load_array, part_path, token_dtype

Encode = Callable[[Sequence[str]], Sequence[NDArray[np.uint32]]]

# Bytes of text per shard. An interrupted run loses at most the work on one shard, about a second of tokenization.
SHARD_BYTES = 32_000_000
_PROGRESS_BYTES = 1_000_000  # Bytes of text per call of the tokenizer.


class FinishedFiles(Protocol):
    """Record of finished files and their checksums. `groundup.core.artifact.Work` implements this protocol."""

    def has(self, *files: Path) -> bool:
        """Return whether all of these files are recorded and have not changed since."""
        ...

    def keep(self, files: Iterable[Path]) -> None:
        """Record these files as finished."""
        ...


@dataclass(slots=True)
class Counts:
    """Numbers of documents, tokens and text bytes in a split or a shard."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.documents + other.documents, self.tokens + other.tokens, self.bytes + other.bytes)


@dataclass(slots=True)
class WrittenShards:
    """Result of `write_shards`.

    Attributes:
        files: All files that were written or reused, including the index.
        splits: Counts of each split.
    """

    files: list[Path] = field(default_factory=list)
    splits: dict[Split, Counts] = field(default_factory=dict)


def write_shards(
    directory: Path,
    splits: Mapping[Split, Iterable[str]],
    encode: Encode,
    *,
    vocab_size: int,
    bos_id: int,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda _: None,
    finished: FinishedFiles | None = None,
) -> WrittenShards:
    """Tokenize every document, and write the shards and their index.

    The texts alone determine which documents a shard contains. Therefore, an interrupted run that is started again with
    the same texts reuses its finished shards.

    Args:
        directory: Output directory, whose layout is described in docs/architecture.md.
        splits: Documents of each split, in order.
        encode: Function that tokenizes texts without adding BOS. The ids must be smaller than `vocab_size`.
        vocab_size: Vocabulary size, which determines whether ids are stored as uint16 or uint32.
        bos_id: Id of the BOS token, which is recorded in the index but not stored in the shards.
        shard_bytes: Number of UTF-8 bytes of text at which a shard is complete.
        progress: Callback for progress, called with the number of bytes of text processed since the last call.
        finished: Record of finished shards, or None to reuse every existing shard that matches the texts.
    """
    written = WrittenShards()
    records: dict[Split, list[dict[str, Any]]] = {}
    for split, texts in splits.items():
        records[split] = []
        written.splits[split] = Counts()
        for number, group in enumerate(_groups(texts, shard_bytes)):
            name = f"{split}-{number:05d}"
            byte_lengths = np.array([len(text.encode()) for text in group], dtype=np.int64)
            paths = {part: part_path(directory, name, part) for part in PARTS}
            usable = finished is None or finished.has(*paths.values())
            counts = _finished(directory, name, byte_lengths) if usable else None
            if counts is None:
                ids: list[NDArray[np.uint32]] = []
                for part in _groups(group, _PROGRESS_BYTES):
                    ids.extend(encode(part))
                    progress(sum(len(text.encode()) for text in part))
                counts = _write(directory, name, ids, byte_lengths, token_dtype(vocab_size))
                if finished is not None:
                    finished.keep(paths.values())
            else:
                progress(counts.bytes)
            digests = {part: file_digest(path) for part, path in paths.items()}
            records[split].append({"name": name, **asdict(counts), "digests": digests})
            written.splits[split] += counts
            written.files.extend(paths.values())
    write_json(
        directory / INDEX,
        {"format_version": FORMAT_VERSION, "vocab_size": vocab_size, "bos_id": bos_id, "shards": records},
    )
    written.files.append(directory / INDEX)
    return written


def require_shard_space(
    directory: Path, sample: Sequence[str], encode: Encode, *, vocab_size: int, text_bytes: int, documents: int
) -> None:
    """Estimate the size of the shards from a sample of the texts, and check that the disk has enough free space.

    Args:
        directory: Output directory. The size of shards that already exist is subtracted from the estimate.
        sample: A sample of the texts.
        encode: Function that tokenizes texts.
        vocab_size: Vocabulary size.
        text_bytes: Number of UTF-8 bytes of all texts.
        documents: Number of documents.

    Raises:
        ResourceError: The disk does not have enough free space.
    """
    tokens = sum(len(ids) for ids in encode(sample))
    share = tokens / max(1, sum(len(text.encode()) for text in sample))
    needed = int(share * text_bytes) * token_dtype(vocab_size).itemsize + documents * 2 * np.dtype(np.int64).itemsize
    written = sum(
        path.stat().st_size for part in PARTS for path in directory.glob(part_path(directory, "*", part).name)
    )
    require_disk_space(directory, needed - written, "encoding")


def _groups(texts: Iterable[str], shard_bytes: int) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text.encode())
        if size >= shard_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write(
    directory: Path,
    name: str,
    documents: Sequence[NDArray[np.uint32]],
    byte_lengths: NDArray[np.int64],
    dtype: np.dtype[Any],
) -> Counts:
    offsets = np.zeros(len(documents) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in documents], out=offsets[1:])
    # The byte lengths are written last, because the existence of their file shows that a shard is complete.
    arrays = {"tokens": np.concatenate(documents).astype(dtype), "offsets": offsets, "bytes": byte_lengths}
    for part in PARTS:
        with atomic_file(part_path(directory, name, part)) as temporary, temporary.open("wb") as file:
            save_array(file, arrays[part])
    return _counts(offsets, byte_lengths)


def save_array(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write a one-dimensional array in the .npy format.

    `numpy.save` is not used, because it hides the cause of a failure. For example, its error on a full disk does not
    have an errno.

    Raises:
        OSError: The file cannot be written.
    """
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(file, header)
    file.write(array.tobytes())


def _finished(directory: Path, name: str, byte_lengths: NDArray[np.int64]) -> Counts | None:
    if not part_path(directory, name, PARTS[-1]).is_file():
        return None
    try:
        tokens, offsets, written = (load_array(part_path(directory, name, part)) for part in PARTS)
    except FormatError:
        return None  # The shard is damaged, so it must be tokenized again.
    if not np.array_equal(written, byte_lengths) or offsets[-1] != len(tokens):
        return None
    return _counts(offsets, byte_lengths)


def _counts(offsets: NDArray[np.int64], byte_lengths: NDArray[np.int64]) -> Counts:
    return Counts(len(byte_lengths), int(offsets[-1]), int(byte_lengths.sum()))
