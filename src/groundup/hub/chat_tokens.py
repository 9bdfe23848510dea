"""Addition of chat tokens to the vocabulary of a model."""

from __future__ import annotations

from dataclasses import replace

from groundup.hub.loading import OpenedModel
from groundup.model.vocabulary import resize_token_embeddings
from groundup.tokenizer import chat_token_pieces, with_chat_tokens
from groundup.tokenizer.vocabulary import embedding_rows


def add_chat_tokens(opened: OpenedModel) -> OpenedModel:
    """Add the chat tokens to the tokenizer of a model, and resize its token embeddings.

    A model that already has a chat template or the chat tokens is returned unchanged. New tokens get the ids after the
    last existing token.

    Args:
        opened: base model.

    Returns:
        The model with the chat tokens.
    """
    tokenizer = with_chat_tokens(opened.tokenizer)
    if tokenizer is opened.tokenizer:
        return opened
    rows = embedding_rows(tokenizer.vocab_size, opened.model.config.vocab_size)
    pieces = chat_token_pieces(opened.tokenizer, tokenizer)
    model = resize_token_embeddings(opened.model, rows, pieces).eval().requires_grad_(False)
    return replace(opened, model=model, tokenizer=tokenizer)
