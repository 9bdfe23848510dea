"""Detection of phone numbers by their format or by a label."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from groundup.corpus.privacy.checksums import weighted
from groundup.corpus.privacy.labels import label
from groundup.corpus.privacy.numbers import inside_address
from groundup.corpus.privacy.spans import Finder, NormalizedText, Span

# Digits with separators. In all patterns of this module, each repetition matches exactly one digit in exactly one way.
# The search time is therefore linear, even for a text that consists of digits.
_ZONE = re.compile(r"[+(]{0,2}\d(?:[ .\-/()+]{0,3}\d){5,120}")
_EXTENSION = r"(?:,? ?(?:x|ext\.?|extension) ?\d{1,6}(?!\w))?"
_WHOLE = r"(?<![\w.,\-/+$€£#~])"  # not after a letter, a digit or a sign that belongs to a longer number
_ALONE = _WHOLE + r"(?<!\d )"  # also not after another group of digits
_BARE = _ALONE + r"(?<![=])(?<!= )"  # also not after an equals sign
_END = r"(?![\w%*#])(?![.,:\-/]\d)"

# A number in one of these formats is a phone number even if it has no label.
_UNLABELED = [
    re.compile(pattern + _EXTENSION + _END)
    for pattern in (
        # "+1" and ten digits, or "+" and the 8 to 15 digits of a number of another country (ITU-T E.164)
        r"(?<![\w+.\-~])\(?\+\(?(?:1\)?(?:[ .\-/()]{0,3}\d){10}|[2-9]\)?(?:[ .\-/()]{0,3}\d){7,14})",
        # "00" and a country code, followed by groups of digits
        _ALONE + r"00[1-9]\d{0,3}(?=[ \-/.(])(?:[ .\-/()]{0,2}\d){6,12}",
        # Russia and neighboring countries
        _ALONE + r"8[ \-]?(?:\(\d{3,4}\) ?|\d{3}[ \-])\d{2,3}[ \-]\d\d[ \-]?\d\d",
        # North America
        _WHOLE + r"(?:1[ .\-]?)?(?:\([2-9]\d\d\)[ .\-]?\d{3}[ .\-]\d{4}|[2-9]\d\d(?:-\d{3}-|\.\d{3}\.)\d{4})",
        # Brazil
        _WHOLE + r"\d{2} \d{4,5}-\d{4}",
        # an area code with trunk prefix 0 in brackets, followed by 4 to 11 digits
        _WHOLE + r"\(0\d{1,5}\)(?:[ .\-/]{0,2}\d){4,11}",
        _WHOLE + r"(?<!\))\((?!19|20)[1-9]\d{1,3}\) ?(?:\d{6,9}|\d{3} \d{3} \d{3})",
        # the trunk prefix 0, followed by groups of at least two digits
        _ALONE + r"0[1-9]\d{0,4}(?:[ \-/]\d{2,8}){1,5}(?! [0-9a-f]{2}\b)",
        _ALONE + r"0[1-9](?:\.\d{2}){4}",
        # three groups of digits, of which the first has three or four digits
        _ALONE + r"(?:[2-9]\d{2} \d{3} \d{4}|(?!19|20)[1-9]\d{3} \d{3} \d{3})(?! \d)",
        # 10 or 11 digits with the trunk prefix 0, or the 11 digits of a Chinese mobile number. In real texts, a
        # sequence of digits in one of these formats is almost always a phone number.
        _BARE + r"(?:0[1-9]\d{8,9}|1[3-9]\d{9})",
    )
]
_TRUNK = 7  # index of the pattern that also matches dates and postal codes
_LABELED = re.compile(_ALONE + r"\(?\d(?:[ .\-/()]{0,2}\d){5,14}" + _EXTENSION + _END)
# In Chinese text, there is usually no space before a phone number.
_CHINESE_MOBILE = re.compile(r"(?<=[\u4e00-\u9fff])1[3-9]\d{9}(?!\d)")

_LIST = re.compile(r"[ ,;/|&]{0,3}(?:and|or|und|oder|et|ou|y|o|e|и|或)?[ ,;/|&]{0,2}")
_DAY, _MONTH = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_DATE = re.compile(
    rf"(?:{_DAY}([./\-]){_MONTH}|{_MONTH}([./\-]){_DAY})(?:\1|\2)(?:19|20)?\d\d(?![./\-]?\d)"
    rf"|{_DAY} {_MONTH} (?:19|20)\d\d(?!\d)|(?:1[5-9]|20)\d\d([./\- ]){_MONTH}\3{_DAY}(?!\d)"
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6})?(?!\d)"
)
_YEARS = re.compile(r"\D*(?:(?:1[5-9]|20)\d\d\D*){2,}")
_FOURS = re.compile(r"\d{4}(?: \d{4})+")  # may also be Unicode code points or other hexadecimal numbers
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:[ .]\d{3})+")
_FRACTION = re.compile(r"\d+\.\d{5,}|\d\.|.*\.\d(?!\d)")  # a decimal fraction or a version number
_COORDINATES = re.compile(r"\+\d{1,3}\.\d{2,}[+\-]\d")  # geographic coordinates (ISO 6709)


def phone_finder(regions: Collection[str] = ()) -> Finder:
    """Return a finder of phone numbers.

    Args:
        regions: ISO 3166 codes of countries. National phone numbers of these countries are found even if they have no
            label, provided that the phonenumbers library considers them valid.
    """

    def find(view: NormalizedText) -> Iterator[Span]:
        if not view.has_number:
            return
        text, last = view.text, None
        for zone in _ZONE.finditer(text):
            if _DATE.fullmatch(zone[0]):  # Most matches of `_ZONE` are dates.
                continue
            for place, pattern in enumerate(_UNLABELED):
                for found in _matches(pattern, text, zone):
                    if _is_unlabeled_phone(text, found, place):
                        yield Span(*found.span(), "phone")
            for found in _matches(_LABELED, text, zone):
                if _is_labeled_phone(text, found) or _is_next(text, last, found) or _is_valid(found[0], regions):
                    last = found
                    yield Span(*found.span(), "phone")
            for found in _matches(_CHINESE_MOBILE, text, zone):
                if label(text, *found.span()).kind not in ("other", "national_id"):
                    yield Span(*found.span(), "phone")

    return find


def phone_regions() -> Collection[str]:
    """Return the ISO 3166 codes of the countries whose numbering plan the phonenumbers library knows."""
    import phonenumbers

    return phonenumbers.SUPPORTED_REGIONS


def _matches(pattern: re.Pattern[str], text: str, zone: re.Match[str]) -> Iterator[re.Match[str]]:
    # An extension may follow the match of `_ZONE`. A number that begins after this match belongs to the next match.
    for found in pattern.finditer(text, zone.start(), zone.end() + 16):
        if found.start() < zone.end():
            yield found


def _is_unlabeled_phone(text: str, found: re.Match[str], place: int) -> bool:
    number = found[0]
    digits = sum(map(str.isdigit, number))
    if number.endswith("00000") or _DATE.match(number) or _FOURS.fullmatch(number) or number in "01234567890":
        return False
    if number.isdigit() and len(number) == 10 and _is_isbn(number):
        return False
    if re.search(r"(?<!\d)(?:19|20)\d\d (?:19|20)\d\d(?!\d)", number):
        return False
    if number[0] == "+" and number[1:].isdigit() and digits < 9:
        return False
    if place == _TRUNK and not 9 <= digits <= 13:
        return False
    if place == _TRUNK and re.fullmatch(r"\d{5}-\d{4}", number):  # a US ZIP+4 code
        return False
    if _COORDINATES.match(number):
        return False
    kind, _, adjacent = label(text, *found.span())
    return (not adjacent or kind in ("phone", "ip_address")) and not inside_address(text, found.start())


def _is_isbn(digits: str) -> bool:
    return weighted(digits, range(10, 0, -1)) % 11 == 0


def _is_labeled_phone(text: str, found: re.Match[str]) -> bool:
    number = found[0]
    kind, _, adjacent = label(text, *found.span())
    if kind != "phone":
        return False
    if (
        _DATE.match(number)
        or _YEARS.fullmatch(number)
        or number.endswith("00000")
        or inside_address(text, found.start())
    ):
        return False
    if (_FRACTION.match(number) and not (adjacent and number.count(".") == 1)) or (
        number.startswith("00") and _FOURS.fullmatch(number)
    ):
        return False
    digits = sum(map(str.isdigit, number))
    if _THOUSANDS.fullmatch(number):
        return digits >= 9 and "000" not in number
    return digits >= 7 or (adjacent and "/" not in number)


def _is_next(text: str, last: re.Match[str] | None, found: re.Match[str]) -> bool:
    """Return whether a number continues a list of phone numbers, as in "call 555 0100 or 555 0101"."""
    if last is None or not _LIST.fullmatch(text, last.end(), found.start()):
        return False
    return re.sub(r"\d", "0", last[0]) == re.sub(r"\d", "0", found[0])


def _is_valid(number: str, regions: Collection[str]) -> bool:
    if not regions:
        return False
    import phonenumbers

    for region in regions:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False
