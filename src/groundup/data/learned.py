"""What a model was trained on, kept beside it as hashes: so that it is not tested on that unknowingly.

Whoever has such a text can find out by it whether it was trained on; the texts themselves cannot be read from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file
from groundup.data.tables import alike

LEARNED_FILE = "learned.hashes"
_BYTES = 8  # of a hash: among a million texts, another one is taken for one of them once in 10^13 times


def learned_hash(text: str) -> int:
    """Equal for texts that differ in case or white space only."""
    return int(alike(text)[: 2 * _BYTES], 16)


def save_learned(directory: Path, texts: Iterable[str], before: Set[int] = frozenset()) -> Path:
    """Keep which texts were trained on.

    Args:
        before: hashes of what the model had learned when this training began.
    """
    path = directory / LEARNED_FILE
    with atomic_file(path) as temporary:
        temporary.write_bytes(_packed({learned_hash(text) for text in texts} | before))
    return path


def learned_by(directory: Path) -> frozenset[int]:
    """The hashes of all that a model was trained on; none where nothing is kept, as of models that are not ours.

    Raises:
        FormatError: the file is damaged.
    """
    path = directory / LEARNED_FILE
    data = path.read_bytes() if path.is_file() else b""
    if len(data) % _BYTES:
        raise FormatError(
            f"{path}: {len(data):,} bytes",
            rule=f"it holds hashes of {_BYTES} bytes each",
            fix="Get the model again, or delete this file: then nobody can tell what the model was trained on.",
        )
    return frozenset(int.from_bytes(data[at : at + _BYTES], "little") for at in range(0, len(data), _BYTES))


def _packed(hashes: Iterable[int]) -> bytes:
    return b"".join(each.to_bytes(_BYTES, "little") for each in sorted(hashes))
