"""Sentence boundaries, in scripts with terminal punctuation."""

from __future__ import annotations

import re
from itertools import pairwise

# Latin, CJK (full, half and small forms), Arabic and Urdu, Devanagari, Armenian, Ethiopic,
# Burmese, Khmer, Mongolian, Tibetan, Thai, and double marks.
MARKS = ".?!。．｡？！﹖﹗؟۔।॥։።፧၊။។៕᠃᠉།๏‼⁇⁈⁉‽"
CLOSING = "\"'”’»」』"
ENDS = frozenset(MARKS + CLOSING)
_ANY = re.escape(MARKS) + "…"

# A mark, closing quotation marks or brackets, then a space and no lowercase letter. CJK marks need no space. An
# initial ("J. S. Bach") does not end a sentence.
_WITHIN = re.compile(
    rf"(?<![{_ANY}])(?<![ .(][A-Z])[{_ANY}]++[{CLOSING})\]]*+\s+(?=[^\sa-z])|[。．｡？！][{CLOSING}]*+(?=[^\s{_ANY}])"
)


def count_sentences(line: str) -> int:
    """Count the sentences of a line, at least one."""
    return 1 + len(_WITHIN.findall(line))


def split_sentences(line: str) -> list[str]:
    """Split a line into its sentences."""
    edges = [0, *(match.end() for match in _WITHIN.finditer(line)), len(line)]
    return [line[start:end].strip() for start, end in pairwise(edges)]
