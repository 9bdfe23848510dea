"""Stop texts: what the user sees must not depend on how the tokenizer happens to cut the text."""

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


def test_text_is_held_back_only_while_it_may_become_a_stop():
    scanner = StopScanner(("\nUser:",))
    assert scanner.feed("Hello.\nUs") == "Hello."
    assert scanner.feed("ually") == "\nUsually"
    assert not scanner.stopped


def test_an_unfinished_stop_is_text_at_the_end():
    assert scan(["ab", "\nUs"], ("\nUser:",)) == ("ab\nUs", False)


def test_without_stops_nothing_is_held_back():
    assert StopScanner(()).feed("anything") == "anything"


def _expected(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """By definition: read on until some stop has just been read; what came before the longest such is
    shown."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


letters = st.text("ab\n", max_size=12)


@given(st.lists(letters, max_size=6), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
@example(["abcd"], ["abcd", "bc"])  # one piece holds two stops: the one complete first, not the one begun first
@example(["aa", "ab"], ["aab"])  # the held-back suffix overlaps itself
def test_cuts_make_no_difference(pieces: list[str], stops: list[str]):
    assert scan(pieces, tuple(stops)) == _expected("".join(pieces), tuple(stops))
