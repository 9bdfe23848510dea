"""Check digits and dates inside national ids, as their issuers publish them; arguments are without separators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from groundup.corpus.privacy.checksums import luhn, mod11_2, mod11_10, verhoeff, weighted

Check = Callable[[str], bool]

_SPANISH = "TRWAGMYFPDXBNJZSQVHLCKE"
_FINNISH = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_IRISH = "WABCDEFGHIJKLMNOPQRSTUV"
_TAIWANESE = "ABCDEFGHJKLMNPQRSTUVXYWZIO"  # in the order of their codes, 10 to 35
_MEXICAN = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"
_ITALIAN_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _day(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def year_first(text: str) -> bool:
    """YYMMDD at the beginning."""
    return _day(text[2:4], text[4:6])


def day_first(text: str) -> bool:
    """DDMM at the beginning."""
    return _day(text[2:4], text[:2])


def both(*checks: Check) -> Check:
    """All of them."""
    return lambda text: all(check(text) for check in checks)


def divisible(weights: Sequence[int], modulus: int = 11) -> Check:
    """The weighted sum of all digits, the check digit among them, is divisible."""
    return lambda text: weighted(text, weights) % modulus == 0


def last_digit(weights: Sequence[int], modulus: int = 11, *, minus: bool = False) -> Check:
    """The last digit is the weighted sum of those before it by the modulus (with `minus`: what lacks), 10 as 0."""

    def check(text: str) -> bool:
        rest = weighted(text[:-1], weights) % modulus
        return ((modulus - rest) % modulus if minus else rest) % 10 == int(text[-1])

    return check


def ssn(text: str) -> bool:
    """United States: no part is of noughts, 666 was never given out; there is no check digit."""
    return text[:3] not in ("000", "666") and text[3:5] != "00" and text[5:] != "0000"


def korean(text: str) -> bool:
    """South Korea: YYMMDD; from 2020 on the rest is random."""
    return int(text[2:4]) <= 12 and int(text[4:6]) <= 31


def medicare(text: str) -> bool:
    """Australia, Medicare: the ninth digit checks the first eight, the tenth is the card's number."""
    return weighted(text[:8], (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(text[8])


def thai(text: str) -> bool:
    """Thailand: weights falling from 13, what lacks to 11, its last digit."""
    return (11 - weighted(text[:12], range(13, 1, -1)) % 11) % 10 == int(text[12])


def nhs(text: str) -> bool:
    """United Kingdom, NHS number; a check digit of 10 is never given out."""
    return -weighted(text, range(10, 1, -1)) % 11 == int(text[-1])


def nir(text: str) -> bool:
    """France, sécurité sociale: the key is 97 less the number by 97; Corsica's 2A and 2B count as 19 and 18."""
    return 97 - int(text[:-2].replace("2A", "19").replace("2B", "18")) % 97 == int(text[-2:])


def steuer_id(text: str) -> bool:
    """Germany, tax id: one digit of the first ten stands two or three times."""
    return mod11_10(text) and len(set(text[:10])) in (8, 9)


def rentenversicherung(text: str) -> bool:
    """Germany, pension insurance: the letter as two digits, the sum of the weighted digits' digit sums."""
    digits = f"{text[:8]}{ord(text[8]) - 64:02d}{text[9:]}"
    products = (int(d) * w for d, w in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=False))
    return sum(product // 10 + product % 10 for product in products) % 10 == int(text[-1])


def dni(text: str) -> bool:
    """Spain, DNI and NIE (X, Y, Z count as 0, 1, 2): a letter by the number modulo 23."""
    return _SPANISH[int(text[:-1].translate({88: "0", 89: "1", 90: "2"})) % 23] == text[-1]


def kennitala(text: str) -> bool:
    """Iceland: DDMMYY, the ninth digit checks the first eight."""
    return day_first(text) and -weighted(text, (3, 2, 7, 6, 5, 4, 3, 2)) % 11 == int(text[8])


def codice_fiscale(text: str) -> bool:
    """Italy: characters on odd places by a table, those on even places by their value, modulo 26."""
    total = 0
    for place, character in enumerate(text[:15]):
        value = int(character) if character.isdigit() else ord(character) - 65
        total += value if place % 2 else _ITALIAN_ODD[value]
    return chr(65 + total % 26) == text[-1]


def belgian(text: str) -> bool:
    """Belgium, Rijksregister: 97 less the number by 97; those born from 2000 on have a 2 before it."""
    return year_first(text) and int(text[-2:]) in (97 - int(text[:9]) % 97, 97 - int("2" + text[:9]) % 97)


def pesel(text: str) -> bool:
    """Poland: the century is added to the month in twenties."""
    month = f"{int(text[2:4]) % 20:02d}"
    return _day(month, text[4:6]) and weighted(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def personnummer(text: str) -> bool:
    """Sweden: Luhn over the last ten digits; a coordination number has the day plus 60."""
    short = text[-10:]
    return _day(short[2:4], f"{int(short[4:6]) % 60:02d}") and luhn(short)


def fodselsnummer(text: str) -> bool:
    """Norway: two check digits; a D-number has the day plus 40."""
    return (
        _day(text[2:4], f"{int(text[:2]) % 40:02d}")
        and weighted(text, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11 == 0
        and weighted(text, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0
    )


def hetu(text: str) -> bool:
    """Finland: a character by the date and the serial number modulo 31."""
    return day_first(text) and _FINNISH[int(text[:6] + text[-4:-1]) % 31] == text[-1]


def baltic(text: str) -> bool:
    """Estonia and Lithuania: a second row of weights where the first gives 10."""
    rest = weighted(text[:10], (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = weighted(text[:10], (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return _day(text[3:5], text[5:7]) and rest == int(text[-1])


def latvian(text: str) -> bool:
    """Latvia, personas kods with a date of birth."""
    rest = (1 + weighted(text[:10], (10, 5, 8, 4, 2, 1, 6, 3, 7, 9))) % 11 % 10
    return day_first(text) and rest == int(text[-1])


def rodne_cislo(text: str) -> bool:
    """Czechia and Slovakia: divisible by 11; women have the month plus 50, a second series plus 20."""
    return _day(f"{int(text[2:4]) % 50 % 20:02d}", text[4:6]) and (int(text) % 11 == 0 or int(text[:9]) % 11 == 10)


def hungarian(text: str) -> bool:
    """Hungary, személyi szám: weights rise or, for those born from 1997 on, fall."""
    rest = {weighted(text[:10], range(1, 11)) % 11, weighted(text[:10], range(10, 0, -1)) % 11}
    return year_first(text[1:]) and int(text[-1]) in rest


def egn(text: str) -> bool:
    """Bulgaria: the century is added to the month in twenties."""
    return _day(f"{int(text[2:4]) % 20:02d}", text[4:6]) and (
        weighted(text[:9], (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == int(text[-1])
    )


def cnp(text: str) -> bool:
    """Romania: 10 is written as 1."""
    rest = weighted(text[:12], (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return year_first(text[1:]) and (1 if rest == 10 else rest) == int(text[-1])


def tckn(text: str) -> bool:
    """Turkey: two check digits."""
    odd, even = sum(map(int, text[:9:2])), sum(map(int, text[1:8:2]))
    return (odd * 7 - even) % 10 == int(text[9]) and sum(map(int, text[:10])) % 10 == int(text[10])


def inn(text: str) -> bool:
    """Russia, tax number of a person: two check digits."""
    return (
        weighted(text[:10], (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10 == int(text[10])
        and weighted(text[:11], (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10 == int(text[11])
    )  # fmt: skip


def snils(text: str) -> bool:
    """Russia, pension insurance: two digits of control; 100 and 101 are written as 00."""
    return weighted(text[:9], range(9, 0, -1)) % 101 % 100 == int(text[9:])


def iin(text: str) -> bool:
    """Kazakhstan: a second row of weights where the first gives 10."""
    rest = weighted(text[:11], range(1, 12)) % 11
    if rest == 10:
        rest = weighted(text[:11], (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2)) % 11
    return year_first(text) and rest == int(text[-1])


def chinese(text: str) -> bool:
    """China, resident id: region, YYYYMMDD, serial, ISO 7064 mod 11-2."""
    return text[6:8] in ("18", "19", "20") and _day(text[10:12], text[12:14]) and mod11_2(text)


def taiwanese(text: str) -> bool:
    """Taiwan: the letter as a number of two digits, weights falling."""
    code = 10 + _TAIWANESE.index(text[0])
    return (code // 10 + code % 10 * 9 + weighted(text[1:], (8, 7, 6, 5, 4, 3, 2, 1, 1))) % 10 == 0


def hong_kong(text: str) -> bool:
    """Hong Kong: letters from A = 10, a missing first one as 36, modulo 11 with A for 10."""
    body, check = text[:-1].rjust(8), text[-1]
    values = [36 if character == " " else int(character, 36) for character in body]
    total = sum(value * weight for value, weight in zip(values, range(9, 1, -1), strict=True))
    return (total + (10 if check == "A" else int(check))) % 11 == 0


def singaporean(text: str) -> bool:
    """Singapore, NRIC and FIN: a letter by the weighted sum modulo 11, its table by the first letter."""
    total = weighted(text[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(text[0], 0)
    table = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "KLJNPQRTUWX"}.get(text[0], "XWUTRQPNMLK")
    return table[10 - total % 11 if text[0] == "M" else total % 11] == text[-1]


def my_number(text: str) -> bool:
    """Japan, individual number."""
    rest = weighted(text[:11], (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (0 if rest < 2 else 11 - rest) == int(text[-1])


def cpf(text: str) -> bool:
    """Brazil: two check digits; eleven equal digits agree, too, but are nobody's."""
    first = weighted(text[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(text[:10], range(11, 1, -1)) * 10 % 11 % 10
    return len(set(text)) > 1 and text[9:] == f"{first}{second}"


def rut(text: str) -> bool:
    """Chile: weights 2 to 7 from the right, modulo 11 with K for 10."""
    total = sum(int(digit) * (2 + place % 6) for place, digit in enumerate(reversed(text[:-1])))
    return "0123456789K0"[11 - total % 11] == text[-1]


def curp(text: str) -> bool:
    """Mexico: values of 37 characters, weights falling from 18."""
    total = sum(_MEXICAN.index(character) * (18 - place) for place, character in enumerate(text[:17]))
    return year_first(text[4:]) and str(-total % 10) == text[-1]


def ppsn(text: str) -> bool:
    """Ireland: a letter by the weighted sum, a second letter weighs 9."""
    second = _IRISH.index(text[8]) * 9 if len(text) == 9 else 0
    return _IRISH[(weighted(text[:7], range(8, 1, -1)) + second) % 23] == text[7]


def emirates(text: str) -> bool:
    """Emirates: the country's number, the year of birth, Luhn."""
    return text.startswith("784") and luhn(text)


def iranian(text: str) -> bool:
    """Iran: the weighted sum modulo 11, from 2 on what lacks to 11."""
    rest = weighted(text[:9], range(10, 1, -1)) % 11
    return (rest if rest < 2 else 11 - rest) == int(text[-1])


def aadhaar(text: str) -> bool:
    """India: Verhoeff; a palindrome is nobody's."""
    return verhoeff(text) and text != text[::-1]


def luxembourgish(text: str) -> bool:
    """Luxembourg: YYYYMMDD, serial, Luhn and then Verhoeff."""
    return _day(text[4:6], text[6:8]) and luhn(text[:12]) and verhoeff(text[:11] + text[12])


def indonesian(text: str) -> bool:
    """Indonesia: region, DDMMYY (women: day plus 40), serial."""
    return _day(text[8:10], f"{int(text[6:8]) % 40:02d}")
