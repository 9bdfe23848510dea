"""Hashes of the texts on which a model was trained, which are used to remove these texts from test sets.

Given a text, the file of hashes shows whether the model was trained on it. The training texts cannot be reconstructed
from the hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file
from groundup.data.tables import normalized_id

HASHES_FILE = "learned.hashes"
_BYTES = 8  # Bytes per hash. With a million hashes, the probability of a false match is about 5e-14 per text.


def text_hash(text: str) -> int:
    """Return a hash that is the same for texts that differ only in case or white space."""
    return int(normalized_id(text)[: 2 * _BYTES], 16)


def save_training_hashes(directory: Path, texts: Iterable[str], before: Set[int] = frozenset()) -> Path:
    """Write the hashes of the training texts to the directory of a model.

    Args:
        directory: Model directory.
        texts: Texts on which the model was trained.
        before: Hashes of the texts on which the base model was fine-tuned before.

    Returns:
        Path of the file.
    """
    path = directory / HASHES_FILE
    with atomic_file(path) as temporary:
        temporary.write_bytes(_packed({text_hash(text) for text in texts} | before))
    return path


def training_hashes(directory: Path) -> frozenset[int]:
    """Return the hashes of all texts on which a model was trained, or an empty set if hashes were not recorded.

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
            fix="Download the model again. If you delete this file instead, training texts are not excluded from "
            "tests.",
        )
    return frozenset(int.from_bytes(data[at : at + _BYTES], "little") for at in range(0, len(data), _BYTES))


def _packed(hashes: Iterable[int]) -> bytes:
    return b"".join(each.to_bytes(_BYTES, "little") for each in sorted(hashes))
