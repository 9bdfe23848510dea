"""Hashes of the texts that a model was trained on, to keep them out of its test sets.

The file shows whether a given text was trained on; the texts cannot be reconstructed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file
from groundup.data.tables import normalized_id

HASHES_FILE = "learned.hashes"
_BYTES = 8  # per hash: with a million texts, the probability of a false match is 10^-13 per text


def text_hash(text: str) -> int:
    """Return a hash that is equal for texts that differ in case or white space only."""
    return int(normalized_id(text)[: 2 * _BYTES], 16)


def save_training_hashes(directory: Path, texts: Iterable[str], before: Set[int] = frozenset()) -> Path:
    """Write the hashes of the training texts.

    Args:
        directory: Model directory.
        texts: Texts that were trained on.
        before: Hashes of the texts that the base model was fine-tuned on.

    Returns:
        Path of the file.
    """
    path = directory / HASHES_FILE
    with atomic_file(path) as temporary:
        temporary.write_bytes(_packed({text_hash(text) for text in texts} | before))
    return path


def training_hashes(directory: Path) -> frozenset[int]:
    """Return the hashes of all texts that a model was trained on; empty if the directory has no record of them.

    Args:
        directory: Model directory.

    Raises:
        FormatError: The file is damaged.
    """
    path = directory / HASHES_FILE
    data = path.read_bytes() if path.is_file() else b""
    if len(data) % _BYTES:
        raise FormatError(
            f"{path}: {len(data):,} bytes is not a multiple of {_BYTES}, the size of a hash",
            fix="Download the model again, or delete this file; then training texts are not excluded from tests.",
        )
    return frozenset(int.from_bytes(data[at : at + _BYTES], "little") for at in range(0, len(data), _BYTES))


def _packed(hashes: Iterable[int]) -> bytes:
    return b"".join(each.to_bytes(_BYTES, "little") for each in sorted(hashes))
