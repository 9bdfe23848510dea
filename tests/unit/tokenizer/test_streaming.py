"""Text as it is generated."""

from __future__ import annotations

from groundup.tokenizer import IM_END, StreamDecoder, Tokenizer


def test_no_delta_splits_a_character(tokenizer: Tokenizer) -> None:
    """Decoding token by token shows U+FFFD where a character's bytes are spread over tokens."""
    text = "naïve 日本 👩‍👩‍👧 Würde"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)  # the vocabulary is small enough to spread them
    stream = StreamDecoder(tokenizer)
    deltas = [stream.feed([token_id]) for token_id in ids]
    assert "\ufffd" not in "".join(deltas)
    assert "" in deltas
    assert "".join(deltas) == text
    assert stream.flush() == ""


def test_a_cut_off_character_appears_at_the_end(tokenizer: Tokenizer) -> None:
    """Generation can stop in the middle of a character (max_tokens); the rest must not vanish."""
    ids = tokenizer.encode("ab😀")[:-1]
    stream = StreamDecoder(tokenizer)
    assert stream.feed(ids) + stream.flush() == tokenizer.decode(ids) == "ab\ufffd"


def test_special_tokens_can_be_shown(tokenizer: Tokenizer) -> None:
    im_end = tokenizer.token_id(IM_END)
    assert im_end is not None
    assert StreamDecoder(tokenizer).feed([*tokenizer.encode("a"), im_end]) == "a"
    assert StreamDecoder(tokenizer, skip_special_tokens=False).feed([im_end]) == IM_END
