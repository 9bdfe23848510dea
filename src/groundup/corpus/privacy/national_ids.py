"""National ids of persons: how each is written, and what must agree in it.

`free` layouts stand alone: their form, date and check digits together are met by fewer than some 3 of 1,000
numbers that happen to be written so. `labelled` ones need a word beside them ("SSN", "personnummer"): one
nine-digit number of eleven passes a check modulo 11.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from groundup.corpus.privacy import national_checks as checks
from groundup.corpus.privacy.checksums import ean, luhn, mod11_10
from groundup.corpus.privacy.national_checks import Check


def _any(text: str) -> bool:
    return True


@dataclass(frozen=True)
class NationalId:
    """One kind of id.

    Attributes:
        country: ISO 3166 code; "" for what many countries give out.
        pattern: what it looks like without separators.
        check: whether dates and check digits agree.
        free, labelled: layouts: lengths of its parts with what stands between them: "3-2-4".
    """

    country: str
    pattern: re.Pattern[str]
    check: Check
    free: tuple[str, ...]
    labelled: tuple[str, ...]

    def is_meant(self, layout: str, word: str, tight: bool) -> bool:
        """Whether a word beside a number in that layout can mean this kind of id.

        "PESEL" means one country's, "national id" anyone's. What is neither checked nor written in a way of its own
        needs the word right before it.
        """
        countries = next((named for name, named in _COUNTRIES_OF.items() if word.startswith(name)), None)
        known = self.check is not _any or layout in self.free
        return (known or tight) and (countries is None or self.country in countries)


def _id(country: str, pattern: str, check: Check = _any, free: str = "", labelled: str = "") -> NationalId:
    return NationalId(
        country, re.compile(pattern), check, *(tuple(x.split("|")) if x else () for x in (free, labelled))
    )


# Words that mean the ids of certain countries; by their beginnings.
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
    _id("AE", r"784\d{12}", checks.emirates, "3-4-7-1|15"),
    _id("AR", r"(?:2[0347]|3[034])\d{9}", checks.divisible((5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)), "2-8-1", "11"),
    _id("AT", r"[1-9]\d{9}", checks.divisible((3, 7, 9, -1, 5, 8, 4, 2, 1, 6)), "", "10|4 6|4-6"),
    _id("AU", r"\d{9}", checks.divisible(_TFN), "", "9|3 3 3|3-3-3"),
    _id("AU", r"[2-6]\d{9}", checks.medicare, "", "10|4 5 1"),
    _id("BE", r"\d{11}", checks.belgian, "11|2.2.2-3.2|2.2.2 3 2|6 3 2|6-3-2|6-3.2"),
    _id("BG", r"\d{10}", checks.egn, "", "10"),
    _id("BR", r"\d{11}", checks.cpf, "3.3.3-2|3.3.3.2", "11|9-2|3 3 3 2"),
    _id("CA", r"\d{9}", luhn, "", "9|3 3 3|3-3-3"),
    _id("CH", r"756\d{10}", ean, "13|3.4.4.2|3 4 4 2"),
    _id("CL", r"\d{7,8}[\dK]", checks.rut, "2.3.3-1|1.3.3-1", "8-1|7-1|8|9"),
    _id("CN", r"[1-8]\d{16}[\dX]", checks.chinese, "18|6 8 4|6-8-4"),
    _id("CO", r"\d{8,10}", _any, "", "8|10|1.3.3.3|2.3.3"),
    _id("CZ", r"\d{10}", checks.rodne_cislo, "6/4", "10"),
    _id("DE", r"[1-9]\d{10}", checks.steuer_id, "2 3 3 3", "11"),
    _id("DE", r"\d{8}[A-Z]\d{3}", checks.rentenversicherung, "12|2 6 1 3|2-6-1-3"),
    _id("DK", r"\d{10}", checks.day_first, "", "6-4|10"),
    _id("EC", r"(?:[01]\d|2[0-4])[0-5]\d{7}", luhn, "", "10|9-1"),
    _id("EE", r"[1-8]\d{10}", checks.baltic, "11"),  # and Lithuania
    _id("EG", r"[23]\d{13}", lambda text: checks.year_first(text[1:]), "", "14"),
    _id("ES", r"\d{8}[A-Z]", checks.dni, "9|8-1|8 1|2.3.3-1"),
    _id("ES", r"[XYZ]\d{7}[A-Z]", checks.dni, "9|1-7-1|1 7 1|1-8"),
    _id("FI", r"\d{6}[A-FU-Y]?\d{3}[0-9A-Y]", checks.hetu, "11|6-4"),
    _id("FR", r"[1-478]\d{4}(?:\d{2}|2[AB])\d{8}", checks.nir, "15|13 2|1 2 2 2 3 3 2"),
    _id("GB", _GB, _any, "9|2 2 2 2 1|2 6 1|2-2-2-2-1|2-6-1|8 1"),
    _id("GB", r"\d{10}", checks.nhs, "", "10|3 3 4|3-3-4"),
    _id("GR", r"\d{11}", checks.both(checks.day_first, luhn), "", "11"),
    _id("HK", r"[A-Z]{1,2}\d{6}[\dA]", checks.hong_kong, "7(1|8(1", "8|9"),
    _id("HR", r"\d{11}", mod11_10, "", "11"),
    _id("HU", r"[1-8]\d{10}", checks.hungarian, "1-6-4|1 6 4", "11"),
    _id("HU", r"\d{9}", checks.last_digit((3, 7, 3, 7, 3, 7, 3, 7), 10), "", "9|3-3-3|3 3 3"),
    _id("ID", r"\d{16}", checks.indonesian, "", "16"),
    _id("IE", r"\d{7}[A-W][A-IW]?", checks.ppsn, "", "8|9|7 1|7 2"),
    _id("IL", r"\d{9}", luhn, "", "9|8-1|1-7-1"),
    _id("IN", r"[2-9]\d{11}", checks.aadhaar, "4 4 4|4-4-4", "12"),
    _id("IN", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", _any, "10"),
    _id("IR", r"\d{10}", checks.iranian, "", "10|3-6-1"),
    _id("IS", r"\d{9}[089]", checks.kennitala, "6-4", "10"),
    _id("IT", r"[A-Z]{6}[\dL-NP-V]{2}[A-EHLMPRST][\dL-NP-V]{2}[A-Z][\dL-NP-V]{3}[A-Z]", checks.codice_fiscale,
        "16|3 3 5 5|6 5 5"),
    _id("JP", r"\d{12}", checks.my_number, "", "12|4 4 4|4-4-4"),
    _id("KR", r"\d{6}[1-8]\d{6}", checks.korean, "6-7", "13"),
    _id("KZ", r"\d{12}", checks.iin, "", "12"),
    _id("LU", r"(?:1[89]|20)\d{11}", checks.luxembourgish, "13"),
    _id("LV", r"\d{11}", checks.latvian, "6-5", "11"),
    _id("LV", r"3[2-9]\d{9}", _any, "", "6-5"),
    _id("MX", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d", checks.curp, "18"),
    _id("MX", r"[A-Z]{4}\d{6}[A-Z0-9]{2}[\dA]", lambda text: checks.year_first(text[4:]), "13|4-6-3|4 6 3"),
    _id("MX", r"\d{11}", luhn, "", "11"),
    _id("MY", r"\d{12}", checks.year_first, "6-2-4", "12"),
    _id("NL", r"\d{9}", checks.divisible((9, 8, 7, 6, 5, 4, 3, 2, -1)), "", "9|4.2.3|3 3 3|4 2 3"),
    _id("NO", r"\d{11}", checks.fodselsnummer, "11|6 5|6-5"),
    _id("PE", r"\d{8}", _any, "", "8"),
    _id("PH", r"\d{12}|\d{10}", _any, "4-7-1|2-7-1"),
    _id("PK", r"[1-9]\d{12}", _any, "5-7-1", "13"),
    _id("PL", r"\d{11}", checks.pesel, "", "11"),
    _id("PT", r"[1-35689]\d{8}", checks.last_digit((9, 8, 7, 6, 5, 4, 3, 2), minus=True), "", "9|3 3 3"),
    _id("RO", r"[1-9]\d{12}", checks.cnp, "13"),
    _id("RS", r"\d{13}", checks.both(checks.day_first, checks.last_digit(_JMBG, minus=True)), "13"),  # and others
    _id("RU", r"\d{12}", checks.inn, "", "12"),
    _id("RU", r"\d{11}", checks.snils, "3-3-3 2|3-3-3-2", "11"),
    _id("SA", r"[12]\d{9}", luhn, "", "10"),
    _id("SE", r"(?:1[89]|20)?\d{10}", checks.personnummer, "6-4|6+4|8-4", "10|12"),
    _id("SG", r"[STFGM]\d{7}[A-Z]", checks.singaporean, "9"),
    _id("TH", r"[1-8]\d{12}", checks.thai, "1-4-5-2-1|1 4 5 2 1", "13"),
    _id("TR", r"[1-9]\d{10}", checks.tckn, "", "11|3 3 3 2"),
    _id("TW", r"[A-Z][1289]\d{8}", checks.taiwanese, "10"),
    _id("UA", r"\d{10}", checks.last_digit((-1, 5, 7, 9, 4, 6, 10, 5, 7)), "", "10"),
    _id("US", r"\d{9}", checks.ssn, "3-2-4", "9|3 2 4|3.2.4"),
    _id("VE", r"[VE]\d{7,8}", _any, "", "1-7|1-8|8|9"),
    _id("VN", r"0\d{11}", _any, "", "12"),
    # passports, and what a text itself calls an id
    _id("", r"[A-Z]{1,2}\d{6,8}|[A-Z]\d{2}[A-Z]{2}\d{4}", _any, "", "7|8|9|10|1-7|1-8"),
    _id("", r"\d{8,18}", _any, "", "8|9|10|11|12|13|14|15|16|17|18|4 6|2 2 6|3 3 4"),
    _id("ZA", r"\d{10}[012]\d{2}", checks.both(checks.year_first, luhn), "13|6 4 3|6 4 2 1"),
)  # fmt: skip

COUNTRIES = tuple(sorted({each.country for each in NATIONAL_IDS if each.country}))


def by_layout(ids: Iterable[NationalId]) -> dict[str, list[NationalId]]:
    """What can be written in each layout."""
    table: dict[str, list[NationalId]] = {}
    for each in ids:
        for layout in each.free + each.labelled:
            table.setdefault(layout, []).append(each)
    return table
