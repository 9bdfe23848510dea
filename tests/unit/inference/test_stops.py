"""Stop texts: the output does not depend on token boundaries."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from groundup.inference.sequence import StopScanner


def scan(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    shown = ""
    for piece in pieces:
        shown += scanner.feed(piece)
        if scanner.stopped:
            return shown, True
    return shown + scanner.flush(), False


def test_text_is_buffered_only_while_it_may_be_a_stop_text():
    scanner = StopScanner(("\nUser:",))
    assert scanner.feed("Hello.\nUs") == "Hello."
    assert scanner.feed("ually") == "\nUsually"
    assert not scanner.stopped


def test_a_partial_stop_text_is_returned_at_the_end():
    assert scan(["ab", "\nUs"], ("\nUser:",)) == ("ab\nUs", False)


def test_without_stop_texts_nothing_is_buffered():
    assert StopScanner(()).feed("anything") == "anything"


def _expected(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """Return the text before the stop text that is completed first (of several, the longest)."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


letters = st.text("ab\n", max_size=12)


@given(st.lists(letters, max_size=6), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
@example(["abcd"], ["abcd", "bc"])  # two stop texts in one piece: "bc" ends first
@example(["aa", "ab"], ["aab"])  # the buffered suffix overlaps itself
def test_the_output_does_not_depend_on_pieces(pieces: list[str], stops: list[str]):
    assert scan(pieces, tuple(stops)) == _expected("".join(pieces), tuple(stops))
