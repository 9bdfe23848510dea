"""Encoding and then decoding a text returns the same text, for a complete text and for a stream of tokens."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.tokenizer import CorpusEncoder, StreamDecoder, Tokenizer

any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.fixture(scope="session")
def encoder(tokenizer: Tokenizer) -> CorpusEncoder:
    return CorpusEncoder(tokenizer, [], threads=2)


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not tokenizer.special_ids & set(ids)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(any_text, max_size=5))
def test_fast_encoder_gives_the_same_ids(tokenizer: Tokenizer, encoder: CorpusEncoder, texts: list[str]) -> None:
    assert encoder.fast
    assert [ids.tolist() for ids in encoder.encode(texts)] == [tokenizer.encode(text) for text in texts]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_stream_decoder_equals_decode(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """A model can generate any token IDs, including tokens that contain only a part of a character."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=60))
    stream = StreamDecoder(tokenizer)
    streamed = "".join([stream.feed([token_id]) for token_id in ids]) + stream.flush()
    assert streamed == tokenizer.decode(ids)
    peer = tokenizers.Tokenizer.from_str(tokenizers.Tokenizer.to_str(tokenizer._backend))
    assert peer.decode(ids, skip_special_tokens=True) == streamed
