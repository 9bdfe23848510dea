"""Where sentences end, in the scripts that have a mark for it."""

from __future__ import annotations

import re
from itertools import pairwise

# Latin, CJK (full, half and small forms), Arabic and Urdu, Devanagari, Armenian, Ethiopic,
# Burmese, Khmer, Mongolian, Tibetan, Thai; and what doubles them.
MARKS = ".?!。．｡？！﹖﹗؟۔।॥։።፧၊။។៕᠃᠉།๏‼⁇⁈⁉‽"
CLOSING = "\"'”’»」』"
ENDS = frozenset(MARKS + CLOSING)
_ANY = re.escape(MARKS) + "…"

# A mark, whatever closes after it, then a space and no small letter; CJK marks need no space. An initial ("J. S.
# Bach") ends nothing.
_WITHIN = re.compile(
    rf"(?<![{_ANY}])(?<![ .(][A-Z])[{_ANY}]++[{CLOSING})\]]*+\s+(?=[^\sa-z])|[。．｡？！][{CLOSING}]*+(?=[^\s{_ANY}])"
)


def count_sentences(line: str) -> int:
    """How many sentences a line of text has; one, if nothing in it ends one."""
    return 1 + len(_WITHIN.findall(line))


def split_sentences(line: str) -> list[str]:
    """The sentences of a line of text."""
    edges = [0, *(match.end() for match in _WITHIN.finditer(line)), len(line)]
    return [line[start:end].strip() for start, end in pairwise(edges)]
