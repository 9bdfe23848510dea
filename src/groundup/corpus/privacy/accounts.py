"""Detection of bank account numbers (IBANs) and payment card numbers by their format and check digits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from groundup.corpus.privacy.checksums import ean, luhn, mod97
from groundup.corpus.privacy.spans import NormalizedText, Span

# Length of an IBAN in each country (SWIFT registry, release 99).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]){10,33}")
_WITHOUT_SPACES = re.compile(r"[A-Z0-9]{14,34}(?!\w)")

# Prefixes and lengths of card numbers, by card network. A match of `_RARE_CARD` is accepted only if there is more
# evidence than a valid Luhn digit, such as a label.
_CARD = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-59]|[689]\d)\d{11}(?:\d\d)?"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}(?:\d{3})?"  # Discover
    r"|35\d{14}|(?:2131|1800)\d{11}"  # JCB
    r"|(?:62|81)\d{14}(?:\d{3})?"  # UnionPay
    r"|(?:5018|5020|5038|5[6-8]\d\d|6304|6390|6759|676[1-3])\d{8,15}"  # Maestro
    r"|220[0-4]\d{12}|(?:60|82|508)\d{13,14}"  # Mir, RuPay
)
_RARE_CARD = re.compile(r"4\d{12}|0604\d{8}|(?:5[06-9]|6\d)\d{10,17}")

CARD_LAYOUTS = frozenset(
    [*map(str, range(12, 20)), "4 3 3 3", "4-3-3-3"]
    + [
        mark.join(groups)
        for mark in " -"
        for groups in ("4444", "465", "464", "444", "4441", "4442", "44443", "844", "88")
    ]
)


def find_ibans(view: NormalizedText) -> Iterator[Span]:
    """Yield IBANs that have valid check digits and the length that their country prescribes.

    If an IBAN is written without spaces, only its check digits are verified. A string that has the length of an IBAN
    but wrong check digits is yielded with the kind "", so that no other finder masks parts of it.
    """
    if not view.has_number:
        return
    text = view.text.upper() if view.text.isascii() else view.text  # IBANs may be written in lower case
    position = 0
    while found := _IBAN.search(text, position):
        start = found.start()
        position = start + 4
        whole = _WITHOUT_SPACES.match(text, start)
        if whole and _is_valid_iban(whole[0]):
            position = whole.end()
            yield Span(start, position, "iban")
        elif end := _end_of_iban(text, found):
            position = end
            yield Span(start, end, "iban" if _is_valid_iban(re.sub("[ -]", "", text[start:end])) else "")


def _end_of_iban(text: str, found: re.Match[str]) -> int:
    """Return the end of an IBAN, or 0 if the text does not have the length that the country prescribes."""
    missing, at = _IBAN_LENGTHS.get(found[0][:2], 99), found.start()
    while missing and at < found.end():
        missing -= text[at].isalnum()
        at += 1
    return 0 if missing or text[at : at + 1].isalnum() else at


def _is_valid_iban(iban: str) -> bool:
    return mod97(iban[4:] + iban[:4]) == 1


def is_card(digits: str, *, labeled: bool, grouped: bool) -> bool:
    """Return whether digits are a card number with a valid Luhn digit, prefix and length.

    Args:
        digits: The digits without separators.
        labeled: Whether a label such as "card" precedes the digits. A number with an unknown prefix is accepted only
            with a label.
        grouped: Whether the digits are written in groups. A number with a rare prefix is accepted only if it is
            written in groups or has a label.
    """
    if not luhn(digits) or len(set(digits)) < 2:
        return False
    if _CARD.fullmatch(digits) or (labeled and len(digits) == 16):
        return True
    rare = _RARE_CARD.fullmatch(digits) is not None
    return rare and (labeled or grouped or (len(digits) == 13 and not ean(digits)))
