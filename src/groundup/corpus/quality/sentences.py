"""Detection of sentence boundaries in scripts that have terminal punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

# Terminal punctuation in this order: Latin, CJK (full-width, half-width and small forms), Arabic and Urdu, Devanagari,
# Armenian, Ethiopic, Burmese, Khmer, Mongolian, Tibetan, Thai, and double punctuation marks.
MARKS = ".?!。．｡？！﹖﹗؟۔।॥։።፧၊။។៕᠃᠉།๏‼⁇⁈⁉‽"
CLOSING = "\"'”’»」』"
ENDS = frozenset(MARKS + CLOSING)
_ANY = re.escape(MARKS) + "…"

# A sentence boundary is a punctuation mark, optional closing quotation marks or brackets, and white space, unless a
# lowercase letter follows. After CJK punctuation, no white space is needed. The period after the initials of a name is
# not a sentence boundary.
_WITHIN = re.compile(
    rf"(?<![{_ANY}])(?<![ .(][A-Z])[{_ANY}]++[{CLOSING})\]]*+\s+(?=[^\sa-z])|[。．｡？！][{CLOSING}]*+(?=[^\s{_ANY}])"
)


def count_sentences(line: str) -> int:
    """Return the number of sentences in a line, which is at least 1."""
    return 1 + len(_WITHIN.findall(line))


def split_sentences(line: str) -> list[str]:
    """Split a line into its sentences."""
    return [line[start:end].strip() for start, end in pairwise(_edges(line))]


def sentence_spans(line: str) -> Iterator[tuple[int, int]]:
    """Yield the offsets of the sentences of a line, without surrounding white space. Empty sentences are left out."""
    for start, end in pairwise(_edges(line)):
        sentence = line[start:end]
        if stripped := sentence.strip():
            first = start + len(sentence) - len(sentence.lstrip())
            yield first, first + len(stripped)


def _edges(line: str) -> list[int]:
    return [0, *(match.end() for match in _WITHIN.finditer(line)), len(line)]
