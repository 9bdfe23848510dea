"""Cleaning repairs only damaged text. Splitting bounds documents and loses no text."""

from __future__ import annotations

import itertools
import time

import pytest
from ftfy.badness import is_bad

from groundup.corpus import text as text_module
from groundup.corpus.text import clean_text, split_text


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("The cafÃ© wasnâ€™t open.", "The café wasn’t open."),  # UTF-8 read as cp1252
        ("Fish &amp; chips &#8212; twice", "Fish & chips — twice"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("nul\x00 bell\x07 bom\ufeff", "nul bell bom"),
        ("cafe\u0301", "café"),  # NFC
        ("\x1b[31mred\x1b[0m", "red"),
        ("a  \nb\t\n\n\n\n\nc\n\n", "a\nb\n\nc"),
        (
            "broken \ud83d pair \ud83d\ude00",
            "broken \ufffd pair 😀",
        ),  # JSON allows lone surrogates, UTF-8 does not
        ("He said ``no'' twice.", 'He said "no" twice.'),
        (f"See ![a chart](data:image/png;base64,{'QUJD' * 999}==) here.", "See  here."),
        (f"See ![][image1]\n\n[image1]: <data:image/png;base64,{'QUJD' * 999}=>", "See ![][image1]"),
        (f"src='data:image/svg+xml;charset=utf-8;base64,{'QUJD' * 999}'", "src=''"),
        ("Write data:text/plain;base64,QUJD instead.", "Write data:text/plain;base64,QUJD instead."),
    ],
)
def test_repairs(broken: str, whole: str) -> None:
    assert clean_text(broken) == whole


@pytest.mark.parametrize(
    "text",
    [
        "“Curly” quotes aren’t mistakes…",
        "Ｆｕｌｌｗｉｄｔｈ　日本語、ﾊﾝｶｸ",
        "if a < b && c: print('&amp stays') # `x` and ``y``",
        "Größe, naïve, Ærøskøbing, Ångström, İstanbul",
        "    indented\n\tcode",
    ],
)
def test_keeps_valid_text(text: str) -> None:
    """Normalizing typography or code would change what the model learns."""
    assert clean_text(text) == text


@pytest.mark.parametrize("unit", ["![", "data:a/b;", "![a](data:", "[a]: <data:a/b;base64,", "data:" + "a" * 90])
def test_unfinished_inline_images_take_linear_time(unit: str) -> None:
    begun = time.process_time()
    clean_text(";base64," + unit * (1_000_000 // len(unit)))
    assert time.process_time() - begun < 5


def test_a_run_of_spaces_takes_linear_time() -> None:
    """The regex `[ ]+$` needs minutes for this text."""
    assert clean_text("a" + " " * 300_000 + "b").endswith("b")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (
            "***START OF THE PROJECT GUTENBERG EBOOK OF A LONG\nTITLE***\n\n\nE-text prepared by A\nand B\n\n",
            "***END OF THE PROJECT",
        ),
        (
            "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
            "End of The Project Gutenberg Etext of X, by Y",
        ),
        ("*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.10/04/01*END*\n\n", "End of Project Gutenberg's X, by Y"),
        (
            "  *** START OF THIS PROJECT GUTENBERG EBOOK X ***\nProduced by David Widger\n\n",
            "  *** END OF THIS PROJECT",
        ),
        ("*** Start of the Project Gutenberg eBook X ***\n", "*** End of the Project"),
    ],
)
def test_project_gutenberg_headers_of_several_years(start: str, end: str) -> None:
    """The oldest headers end with the "small print", which stayed in the text."""
    body = "It was the best of times, it was the worst of times.\n\nProduced by hand, by the way."
    framed = (
        f"The Project Gutenberg Etext of X\n\n{start}\n{body}\n\n{end} GUTENBERG EBOOK X ***\nlicence Project Gutenberg"
    )
    assert clean_text(framed) == body


def test_project_gutenberg_header_and_footer_are_removed() -> None:
    body = "Call me Ishmael.\n\nSome years ago."
    text = (
        "The Project Gutenberg eBook of X\n\nProduced by Y\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n" + body + "\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence"
    )
    assert clean_text(text) == body


def test_a_book_is_split_at_its_chapters() -> None:
    """With one hash per book, a validation set of 2 % could be a whole book or empty."""
    chapters = [f"CHAPTER {n}\n\n" + "\n\n".join(["A sentence of this chapter. " * 20] * 6) for n in range(1, 9)]
    pieces = list(split_text("\n\n".join(chapters), 4096))
    assert all(len(piece.encode()) <= 4096 for piece in pieces)
    assert sum(piece.startswith("CHAPTER") for piece in pieces) == len(pieces)
    assert min(len(piece) for piece in pieces) > 1000  # no tiny piece at the end


def test_a_text_without_spaces_is_split_between_characters() -> None:
    text = "字" * 5000
    pieces = list(split_text(text, 1024))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= 1024 for piece in pieces)


def test_unchecked_lines_have_no_mojibake() -> None:
    """Checking for mojibake dominates the cleaning time, so lines of harmless characters are not checked."""
    harmless = [each for each in text_module._HARMLESS if not each.isascii()]
    for length in (1, 2, 3):
        assert not any(is_bad("".join(each)) for each in itertools.product([*harmless, "a", " "], repeat=length))
    assert clean_text("fine\n\nItâ€™s broken") == "fine\n\nIt’s broken"
