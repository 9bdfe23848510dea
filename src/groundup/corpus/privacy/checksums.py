"""Check digit algorithms for strings of digits, or of digits and letters."""

from __future__ import annotations

from collections.abc import Sequence


def luhn(digits: str) -> bool:
    """Return whether the Luhn check digit is valid (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Return the weighted sum of the first `len(weights)` digits."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def mod97(text: str) -> int:
    """Return the remainder of ISO 7064 mod 97-10, where the letters A to Z stand for the numbers 10 to 35.

    If the first four characters of a valid IBAN are moved to its end, the remainder is 1.
    """
    return int("".join(str(int(character, 36)) for character in text)) % 97


def mod11_10(digits: str) -> bool:
    """Return whether the last digit is a valid ISO 7064 mod 11,10 check digit."""
    product = 10
    for digit in digits[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (product + int(digits[-1])) % 10 == 1


def mod11_2(text: str) -> bool:
    """Return whether the last character (0-9 or X) is a valid ISO 7064 mod 11-2 check character."""
    total = 0
    for character in text[:-1]:
        total = (total + int(character)) * 2 % 11
    return (total + (10 if text[-1] == "X" else int(text[-1]))) % 11 == 1


def ean(digits: str) -> bool:
    """Return whether the last digit is a valid GS1 (EAN) check digit."""
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits))) % 10 == 0


_D5 = tuple(
    tuple((a + b) % 5 + 5 * (b > 4) if a < 5 else (a - b) % 5 + 5 * (b < 5) for b in range(10)) for a in range(10)
)
_PERMUTATION = [tuple(range(10)), (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)]
while len(_PERMUTATION) < 8:
    _PERMUTATION.append(tuple(_PERMUTATION[1][value] for value in _PERMUTATION[-1]))


def verhoeff(digits: str) -> bool:
    """Return whether the last digit is a valid Verhoeff check digit (Verhoeff 1969)."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _D5[check][_PERMUTATION[place % 8][int(digit)]]
    return check == 0
