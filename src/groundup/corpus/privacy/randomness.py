"""Functions that test whether a string looks random, as an API key does, or consists of words."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import log2

_CLASSES = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "a" * 26 + "A" * 26 + "0" * 10, "_-"
)
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF_-")
_MIN_LENGTH = 20  # minimum number of letters and digits
_MIN_LENGTH_ONE_CASE = 24
_MIN_LENGTH_HEXADECIMAL = 32
# Minimum fraction of adjacent characters that belong to different classes (lower case, upper case, digit). The fraction
# is about 0.62 for random base-62 strings, and below 0.3 for camelCase names with digits.
_MIN_CHANGES = 0.38
_MIN_CHANGES_ONE_CASE = 0.22  # The fraction is about 0.40 for random base-36 strings.


def entropy(text: str) -> float:
    """Return the Shannon entropy of the character distribution of `text`, in bits per character."""
    return -sum(count / len(text) * log2(count / len(text)) for count in Counter(text).values())


def may_be_secret(text: str) -> bool:
    """Return whether `text` can be a secret. Ordinary words and placeholders such as "xxxx" cannot be secrets.

    A secret has an entropy of at least 2.8 bits per character, and contains digits, or both uppercase and lowercase
    letters. The entropy of 16 random hexadecimal digits is about 3.2 bits per character.
    """
    cases = any(map(str.islower, text)) and any(map(str.isupper, text))
    return (cases or any(map(str.isdigit, text))) and entropy(text) >= 2.8


def is_hexadecimal(text: str) -> bool:
    """Return whether `text` is a hexadecimal number with both letters and decimal digits, and optional "_" or "-"."""
    return _HEXADECIMAL.issuperset(text) and any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def looks_random(text: str, min_length: int = _MIN_LENGTH, *, known: bool = False) -> bool:
    """Return whether `text` is a long string in which letters and digits alternate more often than in a name.

    Args:
        text: The string.
        min_length: Minimum number of letters and digits.
        known: Whether the preceding text, such as a known prefix, marks the string as a key. A string that is marked as
            a key may be shorter and need not contain digits.
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
    if not known and "A" in classes and length < len(text):  # a constant such as VK_FORMAT_R16G16B16A16_SFLOAT
        return False
    min_digits = 3 if known else 4
    return (
        length >= (min_length if known else max(min_length, _MIN_LENGTH_ONE_CASE))
        and changes >= _MIN_CHANGES_ONE_CASE
        and min_digits <= digits <= 0.6 * length
        and entropy(text) >= (3.0 if known else 3.5)
    )
