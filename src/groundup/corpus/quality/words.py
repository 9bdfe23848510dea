"""Splitting of texts into words, including texts in scripts that do not separate words by spaces."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # NumPy is not imported here, so that recipes can be checked quickly.
    import numpy as np
    import numpy.typing as npt

# Scripts that do not separate words by spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters.
_UNSPACED_RANGES = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSPACED_RANGES)
_PIECES = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def split_words(text: str) -> list[str]:
    """Split a text into words at white space.

    In scripts that do not separate words by spaces, each character is a word.
    """
    return _PIECES.findall(text) if n_unspaced(text) else text.split()


def n_unspaced(text: str) -> int:
    """Count the characters that belong to scripts that do not separate words by spaces."""
    if text.isascii():
        return 0
    import numpy as np

    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    high = units[units >= _UNSPACED_RANGES[0][0]]
    return int(_unspaced_units()[high].sum()) if len(high) else 0


@lru_cache(maxsize=1)
def _unspaced_units() -> npt.NDArray[np.bool_]:
    """Return a mask over all UTF-16 code units that selects the scripts in `_UNSPACED_RANGES`.

    Characters outside the Basic Multilingual Plane are selected by their high surrogate.
    """
    import numpy as np

    table = np.zeros(1 << 16, np.bool_)
    for first, last in _UNSPACED_RANGES:
        if last < len(table):
            table[first : last + 1] = True
        else:
            table[0xD800 + ((first - 0x10000) >> 10) : 0xD800 + ((last - 0x10000) >> 10) + 1] = True
    return table
