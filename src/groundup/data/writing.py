"""Documents to token shards on disk."""

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
from groundup.data.format import FORMAT_VERSION, INDEX, PARTS, load_array, part_path, token_dtype

Encode = Callable[[Sequence[str]], Sequence[NDArray[np.uint32]]]

SHARD_BYTES = 32_000_000  # of text; about a second of encoding, which is what a cut-off run can lose
_PROGRESS_BYTES = 1_000_000  # encoded at once


class Finished(Protocol):
    """What remembers finished files with their checksums: `groundup.core.artifact.Work`."""

    def has(self, *files: Path) -> bool:
        """Whether all of these were kept, and are intact."""
        ...

    def keep(self, files: Iterable[Path]) -> None:
        """Remember them."""
        ...


@dataclass(slots=True)
class Counts:
    """What a split, or one of its shards, holds."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.documents + other.documents, self.tokens + other.tokens, self.bytes + other.bytes)


@dataclass(slots=True)
class Written:
    """What `write_shards` left.

    Attributes:
        files: every file, the index among them.
        splits: what each split holds.
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
    finished: Finished | None = None,
) -> Written:
    """Encode every document and write shards and their index.

    Which documents make up a shard depends on the texts alone. So a run that was cut off, started again with
    the same texts, finds its finished shards and does not encode them again.

    Args:
        directory: where the files go; see docs/architecture.md for their layout.
        splits: the documents of each split, in their order.
        encode: texts to ids, without BOS, each below `vocab_size`.
        vocab_size: decides between uint16 and uint32.
        bos_id: written into the index for readers; not into the shards.
        shard_bytes: UTF-8 bytes of text at which a shard is full.
        progress: called with the bytes of text done since the call before.
        finished: remembers the files of finished shards; None: a shard that is there and fits is used again.
    """
    written = Written()
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


def require_room(
    directory: Path, sample: Sequence[str], encode: Encode, *, vocab_size: int, text_bytes: int, documents: int
) -> None:
    """See before the work that the disk takes its result, estimated by what a sample of the texts comes to.

    Args:
        directory: where the shards go; those of a run that was cut off count as written.
        text_bytes: UTF-8 bytes of all texts.
        documents: how many they are.

    Raises:
        ResourceError: too little space.
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
    # In this order: the lengths in bytes, last, say that the shard is whole.
    arrays = {"tokens": np.concatenate(documents).astype(dtype), "offsets": offsets, "bytes": byte_lengths}
    for part in PARTS:
        with atomic_file(part_path(directory, name, part)) as temporary, temporary.open("wb") as file:
            save_array(file, arrays[part])
    return _counts(offsets, byte_lengths)


def save_array(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write a one-dimensional array as .npy.

    `numpy.save` does not say why it fails: on a full disk its error has no number, and looks like a mistake of ours.

    Raises:
        OSError: the system's own.
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
        return None  # damaged since: encode it again
    if not np.array_equal(written, byte_lengths) or offsets[-1] != len(tokens):
        return None
    return _counts(offsets, byte_lengths)


def _counts(offsets: NDArray[np.int64], byte_lengths: NDArray[np.int64]) -> Counts:
    return Counts(len(byte_lengths), int(offsets[-1]), int(byte_lengths.sum()))
