"""PDF files of several programs, and the layout of their lines into paragraphs."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest

from groundup.corpus.formats import Extracted, extract
from groundup.corpus.formats.pdf import PdfPage, layout
from groundup.corpus.isolated import CrashError, run_isolated
from groundup.corpus.records import RecordOptions
from groundup.corpus.sources import Item


def read(path: str, data: bytes) -> list[str]:
    found = extract(Item(path, len(data)), partial(io.BytesIO, data), RecordOptions(), None)
    return [each.text if isinstance(each, Extracted) else f"{each.reason}!" for each in found]


@pytest.fixture
def documents(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.config.rootpath.parent / "shared" / "data" / "documents"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not here")
    return folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("libreoffice-writer-password.pdf", "password-protected!"),
        ("grayscale-image.pdf", "no text layer: scanned pages!"),
        ("imagemagick-CCITTFaxDecode.pdf", "no text layer: scanned pages!"),
    ],
)
def test_real_pdfs_without_text_have_a_reason(documents: Path, name: str, reason: str) -> None:
    assert read(name, (documents / name).read_bytes()) == [reason]


@pytest.mark.parametrize(
    ("name", "paragraph"),
    [
        ("multicolumn.pdf", "lacinia. Nam ipsum ligula, eleifend at, accumsan nec, suscipit a, ipsum."),  # two columns
        ("multicolumn.pdf", "Prague\tCzech\nDenmark\t"),
        ("multicolumn.pdf", "eget, consectetuer id"),  # split between two justified lines
        ("minimal-document.pdf", "no sea takimata sanctus est"),  # "taki-" ends a line
        ("crazyones-pdfa.pdf", "The misfits. The rebels."),  # a ligature
        ("google-doc-document.pdf", "\n\nReadability counts.\n\n"),
        ("libre-office-link.pdf", "This is a link to an awesome blog."),
    ],
)
def test_real_pdfs_are_read_as_paragraphs(documents: Path, name: str, paragraph: str) -> None:
    (text,) = read("no-suffix", (documents / name).read_bytes())
    assert paragraph in text


def test_page_numbers_are_removed(documents: Path) -> None:
    (text,) = read("a.pdf", (documents / "pdflatex-image.pdf").read_bytes())
    assert text.startswith("1 Your Chapter\n\nLorem ipsum")
    assert text.endswith("dolor sit amet.")


def test_a_truncated_pdf_is_damaged_or_has_its_text(documents: Path) -> None:
    data = (documents / "pdflatex-4-pages.pdf").read_bytes()
    for size in (20, 500, len(data) // 2, len(data) - 100):
        assert read("a.pdf", data[:size])


def test_a_corrupted_pdf(documents: Path) -> None:
    """All bytes in the middle are inverted. PDFium repairs some errors, and the others must not raise."""
    data = bytearray((documents / "pdflatex-outline.pdf").read_bytes())
    data[2000:20000:7] = bytes(255 - byte for byte in data[2000:20000:7])
    assert read("a.pdf", bytes(data))


def test_a_crash_in_native_code_affects_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without isolation, a crash would kill the worker in all three attempts and end the run."""
    (tmp_path / "native_parser.py").write_text(
        "import os, signal\n"
        "def parse(data):\n"
        "    yield data.decode()\n"
        "    if data == b'bad':\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if data == b'hungry':\n"
        "        yield len(bytearray(1 << 40))\n"
        "    yield 'end'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(run_isolated("native_parser:parse", b"good")) == ["good", "end"]
    for bad, why in ((b"bad", "SIGSEGV"), (b"hungry", "exit status")):
        calls = run_isolated("native_parser:parse", bad)
        assert next(calls) == bad.decode()
        with pytest.raises(CrashError, match=why):
            next(calls)
    assert list(run_isolated("native_parser:parse", b"again")) == ["again", "end"]


def page(*lines: tuple[str, float, float], width: float = 5) -> PdfPage:
    """Create a page of lines at (left, baseline), with letters that are `width` points wide."""
    return PdfPage.of([[text, left, y, left + width * len(text), y + 10, False] for text, left, y in lines], 800)


BODY = [
    "It is a truth universally acknowledged, that a single man in",
    "possession of a good fortune, must be in want of a wife. How-",
    "ever little known the feelings or views of such a man may be",
    "on his first entering a neighbourhood, this truth is so well",
    "fixed that he is considered the property of some one.",
]


def test_hyphenated_words_are_joined() -> None:
    text = layout([page(*((line, 50, 700 - 12 * n) for n, line in enumerate(BODY)))])[0]
    assert text == " ".join(BODY).replace("How- ever", "However")


def test_a_compound_keeps_its_hyphen() -> None:
    lines = ["A well-known man of letters sat down near the old well-", "known fountain of the city and wrote."]
    text = layout([page(*((line, 50, 700 - 12 * n) for n, line in enumerate(lines)))])[0]
    assert "old well-known fountain" in text


def test_running_heads_are_removed_and_sentences_continue() -> None:
    """Otherwise each page leaves its title and number in the middle of a sentence."""
    pages = [
        page(
            (f"PRIDE AND PREJUDICE {number}" if number % 2 else f"{number} JANE AUSTEN", 50, 760),
            *((line, 50, 700 - 12 * n) for n, line in enumerate(body)),
        )
        for number, body in enumerate(([*BODY[number:], *BODY[:number]] for number in (0, 1, 2, 3, 4, 0, 2)), 1)
    ]
    text = layout(pages)[0]
    assert "PRIDE" not in text
    assert "JANE" not in text
    assert "in want of a wife. However little known" in text  # from the third page, then from the first
    assert "the property of some one. possession of" in text.replace("\n\n", " ")


def test_columns_in_reverse_file_order() -> None:
    left = [(f"left {n} of the column", 50.0, 700.0 - 12 * n) for n in range(6)]
    right = [(f"right {n} of the column", 300.0, 700.0 - 12 * n) for n in range(6)]
    head = ("A title above of both of the columns that spans the whole page", 50.0, 740.0)
    text = layout([page(*reversed(right), *reversed(left), head)])[0].replace("\n", " ")
    places = [text.index(line) for line, *_ in (head, *left, *right)]
    assert places == sorted(places)
