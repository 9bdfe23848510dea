"""Stop texts: the output does not depend on token boundaries."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from groundup.inference import GenerationRequest, Sampling
from groundup.inference.sequence import GeneratedSequence, StopScanner
from groundup.tokenizer import Tokenizer


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


characters = st.text("abé→😀 \n", min_size=1, max_size=14)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(characters, st.booleans()), min_size=1, max_size=4), st.data())
def test_tokens_may_split_characters_and_stop_texts(
    tokenizer: Tokenizer, pieces: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """Some pieces are encoded as usual, others as one token per byte."""
    byte_ids = {raw[0]: token for token, raw in tokenizer.text_tokens.items() if len(raw) == 1}
    ids: list[int] = []
    for piece, as_bytes in pieces:
        ids += [byte_ids[byte] for byte in piece.encode()] if as_bytes else tokenizer.encode(piece, continues=True)
    text = "".join(piece for piece, _ in pieces)
    spans = data.draw(st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(1, 6)), max_size=3))
    stops = tuple(text[start : start + length] for start, length in spans)
    request = GenerationRequest(prompt=(ids[0],), sampling=Sampling(temperature=0), stop=stops, max_tokens=len(ids))
    sequence = GeneratedSequence(request, (ids[0],), tokenizer, 1000, tokenizer.vocab_size, frozenset())
    output = ""
    for token in ids:
        event = sequence.accept(torch.nn.functional.one_hot(torch.tensor(token), tokenizer.vocab_size).float())
        output += event.text
        if event.finish_reason is not None:
            break
    assert (output, event.finish_reason == "stop") == _expected(text, stops)
