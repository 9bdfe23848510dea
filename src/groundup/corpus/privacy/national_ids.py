"""Formats, dates and check digits of the national IDs of persons.

The layout of a number consists of the lengths of its groups of digits and the separators between the groups. In an
unlabeled layout, a number is recognized as an ID even if it has no label. Fewer than about 3 of 1,000 other numbers in
an unlabeled layout have a valid format, date and check digit. In a labeled layout, a number is recognized as an ID only
if it has a label such as "SSN" or "personnummer". For example, an ID with nine digits and a check digit modulo 11 needs
a label, because 1 of 11 random numbers has a valid check digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from groundup.corpus.privacy.checksums import ean, luhn, mod11_2, mod11_10, verhoeff, weighted

Check = Callable[[str], bool]

_SPANISH = "TRWAGMYFPDXBNJZSQVHLCKE"
_FINNISH = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_IRISH = "WABCDEFGHIJKLMNOPQRSTUV"
_TAIWANESE = "ABCDEFGHJKLMNPQRSTUVXYWZIO"  # letters in the order of their codes, which are 10 to 35
_MEXICAN = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"
_ITALIAN_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _day(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def year_first(text: str) -> bool:
    """Return whether the text begins with a date in the format YYMMDD."""
    return _day(text[2:4], text[4:6])


def day_first(text: str) -> bool:
    """Return whether the text begins with a date in the format DDMM."""
    return _day(text[2:4], text[:2])


def both(*checks: Check) -> Check:
    """Return a check that passes if all of the given checks pass."""
    return lambda text: all(check(text) for check in checks)


def divisible(weights: Sequence[int], modulus: int = 11) -> Check:
    """Return a check that passes if the weighted sum of all digits is divisible by the modulus."""
    return lambda text: weighted(text, weights) % modulus == 0


def last_digit(weights: Sequence[int], modulus: int = 11, *, minus: bool = False) -> Check:
    """Return a check that passes if the last digit is the correct check digit.

    The check digit is the weighted sum of the other digits modulo `modulus`, or 0 if this remainder is 10.

    Args:
        weights: Weights of the digits before the last digit.
        modulus: The modulus.
        minus: Whether the weighted sum is negated before the modulo operation.
    """

    def check(text: str) -> bool:
        rest = weighted(text[:-1], weights) % modulus
        return ((modulus - rest) % modulus if minus else rest) % 10 == int(text[-1])

    return check


def ssn(text: str) -> bool:
    """Return whether `text` is a valid US Social Security number (SSN).

    An SSN does not have a check digit. No part of an SSN consists of zeros only, and the first part is never 666.
    """
    return text[:3] not in ("000", "666") and text[3:5] != "00" and text[5:] != "0000"


def korean(text: str) -> bool:
    """Return whether `text` is a valid South Korean resident registration number.

    The number begins with a date of birth (YYMMDD). In numbers issued since 2020, the digits after the date are random.
    """
    return int(text[2:4]) <= 12 and int(text[4:6]) <= 31


def medicare(text: str) -> bool:
    """Return whether `text` is a valid Australian Medicare number, whose check digit is the ninth digit."""
    return weighted(text[:8], (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(text[8])


def thai(text: str) -> bool:
    """Return whether `text` is a valid Thai ID number, which has a check digit modulo 11."""
    return (11 - weighted(text[:12], range(13, 1, -1)) % 11) % 10 == int(text[12])


def nhs(text: str) -> bool:
    """Return whether `text` is a valid British NHS number. NHS numbers whose check digit would be 10 are not issued."""
    return -weighted(text, range(10, 1, -1)) % 11 == int(text[-1])


def nir(text: str) -> bool:
    """Return whether `text` is a valid French social security number (NIR).

    To compute the check digits, the codes 2A and 2B of Corsica are replaced by 19 and 18.
    """
    return 97 - int(text[:-2].replace("2A", "19").replace("2B", "18")) % 97 == int(text[-2:])


def steuer_id(text: str) -> bool:
    """Return whether `text` is a valid German tax ID.

    In the first ten digits of a tax ID, one digit occurs two or three times.
    """
    return mod11_10(text) and len(set(text[:10])) in (8, 9)


def rentenversicherung(text: str) -> bool:
    """Return whether `text` is a valid German pension insurance number.

    To compute the check digit, the letter is replaced by its position in the alphabet, written with two digits.
    """
    digits = f"{text[:8]}{ord(text[8]) - 64:02d}{text[9:]}"
    products = (int(d) * w for d, w in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=False))
    return sum(product // 10 + product % 10 for product in products) % 10 == int(text[-1])


def dni(text: str) -> bool:
    """Return whether `text` is a valid Spanish DNI or NIE.

    A DNI or NIE ends with a check letter modulo 23. In an NIE, the first letter X, Y or Z stands for the digit 0, 1 or
    2.
    """
    return _SPANISH[int(text[:-1].translate({88: "0", 89: "1", 90: "2"})) % 23] == text[-1]


def kennitala(text: str) -> bool:
    """Return whether `text` is a valid Icelandic kennitala.

    The number begins with a date of birth (DDMM). The ninth digit is the check digit of the first eight digits.
    """
    return day_first(text) and -weighted(text, (3, 2, 7, 6, 5, 4, 3, 2)) % 11 == int(text[8])


def codice_fiscale(text: str) -> bool:
    """Return whether `text` is a valid Italian codice fiscale.

    To compute the check letter, the first, third, fifth, ... characters are converted to numbers with a special table.
    """
    total = 0
    for place, character in enumerate(text[:15]):
        value = int(character) if character.isdigit() else ord(character) - 65
        total += value if place % 2 else _ITALIAN_ODD[value]
    return chr(65 + total % 26) == text[-1]


def belgian(text: str) -> bool:
    """Return whether `text` is a valid Belgian national number.

    The last two digits are check digits modulo 97. For persons born since 2000, a 2 is put before the number to compute
    the check digits.
    """
    return year_first(text) and int(text[-2:]) in (97 - int(text[:9]) % 97, 97 - int("2" + text[:9]) % 97)


def pesel(text: str) -> bool:
    """Return whether `text` is a valid Polish PESEL.

    In a PESEL, a multiple of 20 is added to the month of birth to encode the century.
    """
    month = f"{int(text[2:4]) % 20:02d}"
    return _day(month, text[4:6]) and weighted(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def personnummer(text: str) -> bool:
    """Return whether `text` is a valid Swedish personnummer, which has a Luhn digit.

    In a coordination number (samordningsnummer), 60 is added to the day of birth.
    """
    short = text[-10:]
    return _day(short[2:4], f"{int(short[4:6]) % 60:02d}") and luhn(short)


def fodselsnummer(text: str) -> bool:
    """Return whether `text` is a valid Norwegian fødselsnummer or D-number, which have two check digits.

    In a D-number, 40 is added to the day of birth.
    """
    return (
        _day(text[2:4], f"{int(text[:2]) % 40:02d}")
        and weighted(text, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11 == 0
        and weighted(text, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0
    )


def hetu(text: str) -> bool:
    """Return whether `text` is a valid Finnish personal identity code, which has a check character modulo 31."""
    return day_first(text) and _FINNISH[int(text[:6] + text[-4:-1]) % 31] == text[-1]


def baltic(text: str) -> bool:
    """Return whether `text` is a valid Estonian or Lithuanian personal code.

    If the weighted sum modulo 11 is 10, the check digit is computed with a second list of weights.
    """
    rest = weighted(text[:10], (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = weighted(text[:10], (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return _day(text[3:5], text[5:7]) and rest == int(text[-1])


def latvian(text: str) -> bool:
    """Return whether `text` is a valid Latvian personal code (personas kods) that begins with a date of birth."""
    rest = (1 + weighted(text[:10], (10, 5, 8, 4, 2, 1, 6, 3, 7, 9))) % 11 % 10
    return day_first(text) and rest == int(text[-1])


def rodne_cislo(text: str) -> bool:
    """Return whether `text` is a valid Czech or Slovak birth number (rodné číslo).

    In the birth numbers of women, 50 is added to the month of birth. If all numbers of a day have been issued, 20 is
    also added to the month.
    """
    return _day(f"{int(text[2:4]) % 50 % 20:02d}", text[4:6]) and (int(text) % 11 == 0 or int(text[:9]) % 11 == 10)


def hungarian(text: str) -> bool:
    """Return whether `text` is a valid Hungarian personal number.

    The check digit is computed with ascending weights from 1 to 10. For persons born since 1997, the weights descend
    from 10 to 1.
    """
    rest = {weighted(text[:10], range(1, 11)) % 11, weighted(text[:10], range(10, 0, -1)) % 11}
    return year_first(text[1:]) and int(text[-1]) in rest


def egn(text: str) -> bool:
    """Return whether `text` is a valid Bulgarian EGN.

    In an EGN, a multiple of 20 is added to the month of birth to encode the century.
    """
    return _day(f"{int(text[2:4]) % 20:02d}", text[4:6]) and (
        weighted(text[:9], (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == int(text[-1])
    )


def cnp(text: str) -> bool:
    """Return whether `text` is a valid Romanian CNP. If the weighted sum modulo 11 is 10, the check digit is 1."""
    rest = weighted(text[:12], (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return year_first(text[1:]) and (1 if rest == 10 else rest) == int(text[-1])


def tckn(text: str) -> bool:
    """Return whether `text` is a valid Turkish ID number, which has two check digits."""
    odd, even = sum(map(int, text[:9:2])), sum(map(int, text[1:8:2]))
    return (odd * 7 - even) % 10 == int(text[9]) and sum(map(int, text[:10])) % 10 == int(text[10])


def inn(text: str) -> bool:
    """Return whether `text` is a valid Russian tax number (INN) of a person, which has two check digits."""
    return (
        weighted(text[:10], (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10 == int(text[10])
        and weighted(text[:11], (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10 == int(text[11])
    )  # fmt: skip


def snils(text: str) -> bool:
    """Return whether `text` is a valid Russian pension insurance number (SNILS).

    If the weighted sum modulo 101 is 100 or 0, the check digits are 00.
    """
    return weighted(text[:9], range(9, 0, -1)) % 101 % 100 == int(text[9:])


def iin(text: str) -> bool:
    """Return whether `text` is a valid Kazakh individual identification number.

    If the weighted sum modulo 11 is 10, the check digit is computed with a second list of weights.
    """
    rest = weighted(text[:11], range(1, 12)) % 11
    if rest == 10:
        rest = weighted(text[:11], (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2)) % 11
    return year_first(text) and rest == int(text[-1])


def chinese(text: str) -> bool:
    """Return whether `text` is a valid Chinese resident ID.

    A Chinese resident ID consists of a region code, a date of birth (YYYYMMDD), a serial number and a check character
    (ISO 7064 mod 11-2).
    """
    return text[6:8] in ("18", "19", "20") and _day(text[10:12], text[12:14]) and mod11_2(text)


def taiwanese(text: str) -> bool:
    """Return whether `text` is a valid Taiwanese ID number.

    To compute the check digit, the first letter is replaced by its two-digit code.
    """
    code = 10 + _TAIWANESE.index(text[0])
    return (code // 10 + code % 10 * 9 + weighted(text[1:], (8, 7, 6, 5, 4, 3, 2, 1, 1))) % 10 == 0


def hong_kong(text: str) -> bool:
    """Return whether `text` is a valid Hong Kong ID.

    To compute the check digit, the letters A to Z are replaced by the numbers 10 to 35. If a Hong Kong ID has only one
    letter, the number 36 takes the place of the other letter.
    """
    body, check = text[:-1].rjust(8), text[-1]
    values = [36 if character == " " else int(character, 36) for character in body]
    total = sum(value * weight for value, weight in zip(values, range(9, 1, -1), strict=True))
    return (total + (10 if check == "A" else int(check))) % 11 == 0


def singaporean(text: str) -> bool:
    """Return whether `text` is a valid NRIC or FIN of Singapore.

    The first letter of an NRIC or FIN determines which table of check letters is used.
    """
    total = weighted(text[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(text[0], 0)
    table = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "KLJNPQRTUWX"}.get(text[0], "XWUTRQPNMLK")
    return table[10 - total % 11 if text[0] == "M" else total % 11] == text[-1]


def my_number(text: str) -> bool:
    """Return whether `text` is a valid Japanese individual number (My Number)."""
    rest = weighted(text[:11], (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (0 if rest < 2 else 11 - rest) == int(text[-1])


def cpf(text: str) -> bool:
    """Return whether `text` is a valid Brazilian CPF, which has two check digits and is not one repeated digit."""
    first = weighted(text[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(text[:10], range(11, 1, -1)) * 10 % 11 % 10
    return len(set(text)) > 1 and text[9:] == f"{first}{second}"


def rut(text: str) -> bool:
    """Return whether `text` is a valid Chilean RUT, which has a check character modulo 11 (K stands for 10)."""
    total = sum(int(digit) * (2 + place % 6) for place, digit in enumerate(reversed(text[:-1])))
    return "0123456789K0"[11 - total % 11] == text[-1]


def curp(text: str) -> bool:
    """Return whether `text` is a valid Mexican CURP, whose last digit is a check digit of the first 17 characters."""
    total = sum(_MEXICAN.index(character) * (18 - place) for place, character in enumerate(text[:17]))
    return year_first(text[4:]) and str(-total % 10) == text[-1]


def ppsn(text: str) -> bool:
    """Return whether `text` is a valid Irish PPSN. If a PPSN has a second letter, the weight of this letter is 9."""
    second = _IRISH.index(text[8]) * 9 if len(text) == 9 else 0
    return _IRISH[(weighted(text[:7], range(8, 1, -1)) + second) % 23] == text[7]


def emirates(text: str) -> bool:
    """Return whether `text` is a valid ID of the United Arab Emirates, which has the prefix 784 and a Luhn digit."""
    return text.startswith("784") and luhn(text)


def iranian(text: str) -> bool:
    """Return whether `text` is a valid Iranian national ID number, which has a check digit modulo 11."""
    rest = weighted(text[:9], range(10, 1, -1)) % 11
    return (rest if rest < 2 else 11 - rest) == int(text[-1])


def aadhaar(text: str) -> bool:
    """Return whether `text` is a valid Indian Aadhaar number, which has a Verhoeff digit and is not a palindrome."""
    return verhoeff(text) and text != text[::-1]


def luxembourgish(text: str) -> bool:
    """Return whether `text` is a valid national ID number of Luxembourg.

    The number consists of a date of birth (YYYYMMDD), a serial number, a Luhn digit and a Verhoeff digit.
    """
    return _day(text[4:6], text[6:8]) and luhn(text[:12]) and verhoeff(text[:11] + text[12])


def indonesian(text: str) -> bool:
    """Return whether `text` is a valid Indonesian ID number.

    The number consists of a region code, a date of birth (DDMMYY) and a serial number. In the numbers of women, 40 is
    added to the day of birth.
    """
    return _day(text[8:10], f"{int(text[6:8]) % 40:02d}")


def _any(text: str) -> bool:
    return True


@dataclass(frozen=True)
class NationalId:
    """A kind of national ID.

    Attributes:
        country: ISO 3166 code of the country, or "" for a kind of ID that many countries use.
        pattern: Pattern of the ID without separators.
        check: Function that checks the date and the check digits of an ID.
        unlabeled: Layouts in which an ID is recognized even if it has no label. A layout gives the lengths of the
            groups and the separators, e.g. "3-2-4".
        labeled: Layouts in which an ID is recognized only if it has a label.
    """

    country: str
    pattern: re.Pattern[str]
    check: Check
    unlabeled: tuple[str, ...]
    labeled: tuple[str, ...]

    def matches_label(self, layout: str, word: str, adjacent: bool) -> bool:
        """Return whether the label of a number in this layout can refer to this kind of ID.

        The label "PESEL" refers to the IDs of one country, and the label "national id" to the IDs of all countries. The
        label must be adjacent if this kind of ID has no check digits and the layout is not an unlabeled layout.

        Args:
            layout: Layout of the number, e.g. "3-2-4".
            word: The label in lower case.
            adjacent: Whether the label is adjacent to the number.
        """
        countries = next((named for name, named in _COUNTRIES_OF.items() if word.startswith(name)), None)
        known = self.check is not _any or layout in self.unlabeled
        return (known or adjacent) and (countries is None or self.country in countries)


def _id(country: str, pattern: str, check: Check = _any, unlabeled: str = "", labeled: str = "") -> NationalId:
    return NationalId(
        country, re.compile(pattern), check, *(tuple(x.split("|")) if x else () for x in (unlabeled, labeled))
    )


# Labels that begin with one of these prefixes refer only to the IDs of the given countries.
_COUNTRIES_OF: dict[str, Collection[str]] = {
    name: countries.split() if countries else ("",)
    for countries, names in {
        "": "passport",
        "AR": "cuit cuil",
        "AT CH DE": "sozialversicherung svnr",
        "AU": "tfn",
        "BE": "rijksregister",
        "BG": "egn егн",
        "BR": "cpf",
        "CA": "sin",
        "CH": "ahv avs",
        "CL": "rut",
        "CN": "身份证 身份證 公民身份 居民身份",
        "CO EC VE": "cédula cedula",
        "CZ": "rodn",
        "DE": "steuer idnr",
        "DK": "cpr",
        "EE": "isikukood asmens",
        "ES": "nie",
        "ES PE AR": "dni",
        "ES PT": "nif",
        "FI": "hetu henkilö",
        "FR": "nir insee sécu securite",
        "GB": "nino nhs",
        "GR": "amka",
        "HK": "hkid",
        "HR": "oib",
        "IE": "pps",
        "IL": "teudat תעודת",
        "IN": "aadh",
        "IS": "kennitala",
        "IT": "codice cod.",
        "JP": "マイナンバー 個人番号",
        "KR": "주민",
        "LV": "personas",
        "MX": "curp imss nss",
        "MY": "mykad",
        "NL": "bsn burgerservice sofi",
        "NO": "fødsel fodsel fnr",
        "PL": "pesel",
        "RO": "cnp",
        "RS": "jmbg emšo emso",
        "RU": "инн снилс snils паспорт",
        "SE": "samordning",
        "SE NO": "personnummer",
        "SG": "nric",
        "TR": "kimlik",
        "TW": "身分證",
        "UA": "іпн рнокпп",
        "US": "itin tin",
    }.items()
    for name in names.split()
}

_TFN = (1, 4, 3, 7, 5, 8, 6, 9, 10)
_JMBG = (7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_GB = r"(?!BG|GB|KN|NK|NT)[A-Z]{2}\d{6}[A-DFMPT]"

NATIONAL_IDS = (
    _id("AE", r"784\d{12}", emirates, "3-4-7-1|15"),
    _id("AR", r"(?:2[0347]|3[034])\d{9}", divisible((5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)), "2-8-1", "11"),
    _id("AT", r"[1-9]\d{9}", divisible((3, 7, 9, -1, 5, 8, 4, 2, 1, 6)), "", "10|4 6|4-6"),
    _id("AU", r"\d{9}", divisible(_TFN), "", "9|3 3 3|3-3-3"),
    _id("AU", r"[2-6]\d{9}", medicare, "", "10|4 5 1"),
    _id("BE", r"\d{11}", belgian, "11|2.2.2-3.2|2.2.2 3 2|6 3 2|6-3-2|6-3.2"),
    _id("BG", r"\d{10}", egn, "", "10"),
    _id("BR", r"\d{11}", cpf, "3.3.3-2|3.3.3.2", "11|9-2|3 3 3 2"),
    _id("CA", r"\d{9}", luhn, "", "9|3 3 3|3-3-3"),
    _id("CH", r"756\d{10}", ean, "13|3.4.4.2|3 4 4 2"),
    _id("CL", r"\d{7,8}[\dK]", rut, "2.3.3-1|1.3.3-1", "8-1|7-1|8|9"),
    _id("CN", r"[1-8]\d{16}[\dX]", chinese, "18|6 8 4|6-8-4"),
    _id("CO", r"\d{8,10}", _any, "", "8|10|1.3.3.3|2.3.3"),
    _id("CZ", r"\d{10}", rodne_cislo, "6/4", "10"),
    _id("DE", r"[1-9]\d{10}", steuer_id, "2 3 3 3", "11"),
    _id("DE", r"\d{8}[A-Z]\d{3}", rentenversicherung, "12|2 6 1 3|2-6-1-3"),
    _id("DK", r"\d{10}", day_first, "", "6-4|10"),
    _id("EC", r"(?:[01]\d|2[0-4])[0-5]\d{7}", luhn, "", "10|9-1"),
    _id("EE", r"[1-8]\d{10}", baltic, "11"),  # This kind of ID is also used in Lithuania.
    _id("EG", r"[23]\d{13}", lambda text: year_first(text[1:]), "", "14"),
    _id("ES", r"\d{8}[A-Z]", dni, "9|8-1|8 1|2.3.3-1"),
    _id("ES", r"[XYZ]\d{7}[A-Z]", dni, "9|1-7-1|1 7 1|1-8"),
    _id("FI", r"\d{6}[A-FU-Y]?\d{3}[0-9A-Y]", hetu, "11|6-4"),
    _id("FR", r"[1-478]\d{4}(?:\d{2}|2[AB])\d{8}", nir, "15|13 2|1 2 2 2 3 3 2"),
    _id("GB", _GB, _any, "9|2 2 2 2 1|2 6 1|2-2-2-2-1|2-6-1|8 1"),
    _id("GB", r"\d{10}", nhs, "", "10|3 3 4|3-3-4"),
    _id("GR", r"\d{11}", both(day_first, luhn), "", "11"),
    _id("HK", r"[A-Z]{1,2}\d{6}[\dA]", hong_kong, "7(1|8(1", "8|9"),
    _id("HR", r"\d{11}", mod11_10, "", "11"),
    _id("HU", r"[1-8]\d{10}", hungarian, "1-6-4|1 6 4", "11"),
    _id("HU", r"\d{9}", last_digit((3, 7, 3, 7, 3, 7, 3, 7), 10), "", "9|3-3-3|3 3 3"),
    _id("ID", r"\d{16}", indonesian, "", "16"),
    _id("IE", r"\d{7}[A-W][A-IW]?", ppsn, "", "8|9|7 1|7 2"),
    _id("IL", r"\d{9}", luhn, "", "9|8-1|1-7-1"),
    _id("IN", r"[2-9]\d{11}", aadhaar, "4 4 4|4-4-4", "12"),
    _id("IN", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", _any, "10"),
    _id("IR", r"\d{10}", iranian, "", "10|3-6-1"),
    _id("IS", r"\d{9}[089]", kennitala, "6-4", "10"),
    _id("IT", r"[A-Z]{6}[\dL-NP-V]{2}[A-EHLMPRST][\dL-NP-V]{2}[A-Z][\dL-NP-V]{3}[A-Z]", codice_fiscale,
        "16|3 3 5 5|6 5 5"),
    _id("JP", r"\d{12}", my_number, "", "12|4 4 4|4-4-4"),
    _id("KR", r"\d{6}[1-8]\d{6}", korean, "6-7", "13"),
    _id("KZ", r"\d{12}", iin, "", "12"),
    _id("LU", r"(?:1[89]|20)\d{11}", luxembourgish, "13"),
    _id("LV", r"\d{11}", latvian, "6-5", "11"),
    _id("LV", r"3[2-9]\d{9}", _any, "", "6-5"),
    _id("MX", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d", curp, "18"),
    _id("MX", r"[A-Z]{4}\d{6}[A-Z0-9]{2}[\dA]", lambda text: year_first(text[4:]), "13|4-6-3|4 6 3"),
    _id("MX", r"\d{11}", luhn, "", "11"),
    _id("MY", r"\d{12}", year_first, "6-2-4", "12"),
    _id("NL", r"\d{9}", divisible((9, 8, 7, 6, 5, 4, 3, 2, -1)), "", "9|4.2.3|3 3 3|4 2 3"),
    _id("NO", r"\d{11}", fodselsnummer, "11|6 5|6-5"),
    _id("PE", r"\d{8}", _any, "", "8"),
    _id("PH", r"\d{12}|\d{10}", _any, "4-7-1|2-7-1"),
    _id("PK", r"[1-9]\d{12}", _any, "5-7-1", "13"),
    _id("PL", r"\d{11}", pesel, "", "11"),
    _id("PT", r"[1-35689]\d{8}", last_digit((9, 8, 7, 6, 5, 4, 3, 2), minus=True), "", "9|3 3 3"),
    _id("RO", r"[1-9]\d{12}", cnp, "13"),
    _id("RS", r"\d{13}", both(day_first, last_digit(_JMBG, minus=True)), "13"),  # and Yugoslav successors
    _id("RU", r"\d{12}", inn, "", "12"),
    _id("RU", r"\d{11}", snils, "3-3-3 2|3-3-3-2", "11"),
    _id("SA", r"[12]\d{9}", luhn, "", "10"),
    _id("SE", r"(?:1[89]|20)?\d{10}", personnummer, "6-4|6+4|8-4", "10|12"),
    _id("SG", r"[STFGM]\d{7}[A-Z]", singaporean, "9"),
    _id("TH", r"[1-8]\d{12}", thai, "1-4-5-2-1|1 4 5 2 1", "13"),
    _id("TR", r"[1-9]\d{10}", tckn, "", "11|3 3 3 2"),
    _id("TW", r"[A-Z][1289]\d{8}", taiwanese, "10"),
    _id("UA", r"\d{10}", last_digit((-1, 5, 7, 9, 4, 6, 10, 5, 7)), "", "10"),
    _id("US", r"\d{9}", ssn, "3-2-4", "9|3 2 4|3.2.4"),
    _id("VE", r"[VE]\d{7,8}", _any, "", "1-7|1-8|8|9"),
    _id("VN", r"0\d{11}", _any, "", "12"),
    # Passport numbers, and numbers of any country that have a label.
    _id("", r"[A-Z]{1,2}\d{6,8}|[A-Z]\d{2}[A-Z]{2}\d{4}", _any, "", "7|8|9|10|1-7|1-8"),
    _id("", r"\d{8,18}", _any, "", "8|9|10|11|12|13|14|15|16|17|18|4 6|2 2 6|3 3 4"),
    _id("ZA", r"\d{10}[012]\d{2}", both(year_first, luhn), "13|6 4 3|6 4 2 1"),
)  # fmt: skip

COUNTRIES = tuple(sorted({each.country for each in NATIONAL_IDS if each.country}))


def by_layout(ids: Iterable[NationalId]) -> dict[str, list[NationalId]]:
    """Return a dictionary from each layout to the kinds of IDs that use this layout."""
    table: dict[str, list[NationalId]] = {}
    for each in ids:
        for layout in each.unlabeled + each.labeled:
            table.setdefault(layout, []).append(each)
    return table
