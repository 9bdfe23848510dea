"""A model with the tokens that it lacks for what it is tuned to do."""

from __future__ import annotations

from dataclasses import replace

from groundup.hub.resolve import OpenedModel
from groundup.model.vocabulary import resize_token_embeddings
from groundup.tokenizer import chat_token_pieces, with_chat_tokens
from groundup.tokenizer.vocabulary import VOCAB_MULTIPLE


def ready_to_chat(opened: OpenedModel) -> OpenedModel:
    """The model with the tokens of a chat in its vocabulary, and rows of weights for them.

    One that has a chat template, or the tokens, comes back as it is. What it knows stays what it is: the new tokens
    have ids after all others.
    """
    tokenizer = with_chat_tokens(opened.tokenizer)
    if tokenizer is opened.tokenizer:
        return opened
    rows = opened.model.config.vocab_size
    if tokenizer.vocab_size > rows:
        rows = -(-tokenizer.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    pieces = chat_token_pieces(opened.tokenizer, tokenizer)
    model = resize_token_embeddings(opened.model, rows, pieces).eval().requires_grad_(False)
    return replace(opened, model=model, tokenizer=tokenizer)
