"""Streaming decoding of generated tokens."""

from __future__ import annotations

from groundup.tokenizer import IM_END, StreamDecoder, Tokenizer


def test_no_delta_splits_a_character(tokenizer: Tokenizer) -> None:
    """Decoding single tokens gives U+FFFD if the bytes of a character are in several tokens."""
    text = "naïve 日本 👩‍👩‍👧 Würde"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)  # in this small vocabulary, characters have several tokens
    stream = StreamDecoder(tokenizer)
    deltas = [stream.feed([token_id]) for token_id in ids]
    assert "\ufffd" not in "".join(deltas)
    assert "" in deltas
    assert "".join(deltas) == text
    assert stream.flush() == ""


def test_a_cut_off_character_appears_at_the_end(tokenizer: Tokenizer) -> None:
    """Generation can end in the middle of a character because of max_tokens."""
    ids = tokenizer.encode("ab😀")[:-1]
    stream = StreamDecoder(tokenizer)
    assert stream.feed(ids) + stream.flush() == tokenizer.decode(ids) == "ab\ufffd"


def test_special_tokens_can_be_shown(tokenizer: Tokenizer) -> None:
    im_end = tokenizer.token_id(IM_END)
    assert im_end is not None
    assert StreamDecoder(tokenizer).feed([*tokenizer.encode("a"), im_end]) == "a"
    assert StreamDecoder(tokenizer, skip_special_tokens=False).feed([im_end]) == IM_END
