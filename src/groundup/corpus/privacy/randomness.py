"""Whether characters look drawn at random, as keys are, or written by someone."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import log2

_CLASSES = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "a" * 26 + "A" * 26 + "0" * 10, "_-"
)
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF_-")
_MIN_LENGTH = 20  # of letters and digits
_MIN_LENGTH_ONE_CASE = 24
_MIN_LENGTH_HEXADECIMAL = 32
_MIN_CHANGES = 0.38  # share of neighbors of different classes: random base 62 has 0.62, camelCase with digits below 0.3
_MIN_CHANGES_ONE_CASE = 0.22  # random base 36 has 0.40


def entropy(text: str) -> float:
    """Return Shannon's entropy of the characters of `text`, in bits a character."""
    return -sum(count / len(text) * log2(count / len(text)) for count in Counter(text).values())


def may_be_secret(text: str) -> bool:
    """Return whether `text` can be a key: words, "xxxx" and "your-key-here" cannot.

    Its entropy is at least 2.8 bits (16 random hexadecimal digits have some 3.2, random letters and digits more), and
    it has digits, or letters of both cases.
    """
    cases = any(map(str.islower, text)) and any(map(str.isupper, text))
    return (cases or any(map(str.isdigit, text))) and entropy(text) >= 2.8


def is_hexadecimal(text: str) -> bool:
    """Return whether `text` has no letters but a to f, and both letters and digits."""
    return _HEXADECIMAL.issuperset(text) and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def looks_random(text: str, min_length: int = _MIN_LENGTH, *, known: bool = False) -> bool:
    """Return whether `text` is a long mix of letters and digits that changes too often to be a name.

    Args:
        min_length: of its letters and digits.
        known: whether the text before it says that it is a key: then it may be shorter and need not have digits.
    """
    classes = text.translate(_CLASSES)
    length, digits = len(classes), classes.count("0")
    if length < min_length or len(text) - length > length // 6:
        return False
    if is_hexadecimal(text):
        return length >= (min_length if known else _MIN_LENGTH_HEXADECIMAL) and entropy(text) >= 2.8
    changes = sum(one != other for one, other in pairwise(classes)) / (length - 1)
    if "a" in classes and "A" in classes:
        return (known or digits >= 1) and changes >= _MIN_CHANGES and entropy(text) >= (3.0 if known else 3.5)
    if not known and "A" in classes and length < len(text):  # VK_FORMAT_R16G16B16A16_SFLOAT
        return False
    least = 3 if known else 4
    return (
        length >= (min_length if known else max(min_length, _MIN_LENGTH_ONE_CASE))
        and changes >= _MIN_CHANGES_ONE_CASE
        and least <= digits <= 0.6 * length
        and entropy(text) >= (3.0 if known else 3.5)
    )
