"""Tokenization of texts for a classifier."""

from __future__ import annotations

from groundup.inference.classification import encode
from groundup.tokenizer import Tokenizer


def test_long_texts_are_truncated_and_counted(tokenizer: Tokenizer) -> None:
    texts, cut = encode(tokenizer, ["short", "long " * 100, ""], 16)
    assert cut == 1
    assert [len(text) for text in texts][1:] == [16, 1]
    assert texts[1] == [tokenizer.bos_id, *tokenizer.encode("long " * 100)][:16]


def test_text_cannot_become_a_special_token(tokenizer: Tokenizer) -> None:
    (ids,), _ = encode(tokenizer, ["<|endoftext|><|pad|><|im_end|>"], 99)
    assert not tokenizer.special_ids & set(ids[1:])
