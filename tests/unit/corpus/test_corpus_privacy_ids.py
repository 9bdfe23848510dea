"""Every national id's check: examples that its issuer, a handbook or Wikipedia prints, and the same with a wrong end.

A check that is wrong by one weight passes one number of eleven, so a round trip through our own code would not tell.
"""

from __future__ import annotations

import pytest

from groundup.corpus.privacy import Masker, PrivacySettings

MASKER = Masker(PrivacySettings())

EXAMPLES = [
    ("Steuer-ID", "36574261809"),
    ("Steuer-ID", "36 574 261 809"),
    ("BSN", "111222333"),
    ("PESEL", "44051401359"),
    ("CPF", "390.533.447-05"),
    ("身份证", "11010519491231002X"),
    ("personnummer", "811218-9876"),
    ("henkilötunnus", "131052-308T"),
    ("isikukood", "37605030299"),
    ("asmens kodas", "33309240064"),
    ("personas kods", "161175-19997"),
    ("fødselsnummer", "15108695088"),
    ("rijksregisternummer", "85073003328"),
    ("NIR", "295109912611193"),
    ("codice fiscale", "RCCMNL83S18D969H"),
    ("NIE", "X2482300W"),
    ("DNI", "54362315K"),
    ("NIF", "501964843"),
    ("AMKA", "01013099997"),
    ("CNP", "1630615123457"),
    ("EGN", "7523169263"),
    ("OIB", "33392005961"),
    ("JMBG", "0101006500006"),
    ("rodné číslo", "710319/2745"),
    ("TC Kimlik", "17291716060"),
    ("ИНН", "500100732259"),
    ("SNILS", "112-233-445 95"),
    ("teudat zehut", "039337423"),
    ("身分證", "A123456789"),
    ("HKID", "A123456(3)"),
    ("NRIC", "S1234567D"),
    ("Aadhaar", "2341 2341 2346"),
    ("CURP", "BOXW310820HNERXN09"),
    ("CUIL", "20-26756539-3"),
    ("RUT", "12.531.909-2"),
    ("SIN", "046-454-286"),
    ("TFN", "123 456 782"),
    ("AHV", "756.9217.0769.85"),
    ("PPS", "6433435F"),
    ("kennitala", "120174-3399"),
    ("個人番号", "621498320257"),
    ("NHS number", "943 476 5919"),
    ("РНОКПП", "1759013776"),
    ("SVNR", "1237 010180"),
]
# Of these the last digit is part of a number without a check of its own.
UNCHECKED_ENDS = ("NIE", "PPS", "kennitala")


@pytest.mark.parametrize(("word", "number"), EXAMPLES)
def test_published_examples_are_masked(word: str, number: str) -> None:
    assert MASKER.mask(f"{word}: {number}.").text == f"{word}: [NATIONAL_ID]."


@pytest.mark.parametrize(("word", "number"), [each for each in EXAMPLES if each[0] not in UNCHECKED_ENDS])
def test_a_wrong_check_digit_is_not(word: str, number: str) -> None:
    """A number that the named country never gave out is a look-alike, whatever other countries would say."""
    place = max(place for place, character in enumerate(number) if character.isdigit())
    wrong = f"{number[:place]}{(int(number[place]) + 1) % 10}{number[place + 1 :]}"
    assert MASKER.mask(f"{word}: {wrong}.").text == f"{word}: {wrong}."


def test_a_word_far_away_is_no_word() -> None:
    """Nine digits pass some country's check modulo 11 more often than not."""
    text = "The national id was introduced in 1972 after a long debate. The archive holds 111222333 pages."
    assert MASKER.mask(text).text == text
