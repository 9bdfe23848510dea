"""Resizing of the token embeddings and the output head for a larger vocabulary.

Letters in tensor names: V is the vocabulary size, and D the hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from groundup.model.transformer import Transformer


def resize_token_embeddings(model: Transformer, vocab_size: int, pieces: Mapping[int, Sequence[int]]) -> Transformer:
    """Return a model whose token embeddings and output head are resized to `vocab_size` rows.

    All other weights are shared with the given model. The row of a new token is initialized with the mean of the rows
    of the old tokens that encode the same text. If new rows were random, new tokens would get too much probability
    (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").

    Args:
        model: The model to resize.
        vocab_size: New number of rows, which must not be less than the current number.
        pieces: Id of each new token -> ids of the old tokens that encode the same text. Rows that do not belong to a
            token are initialized with the mean of all rows.
    """
    assert vocab_size >= model.config.vocab_size
    weights = dict(model.state_dict())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = _extended(weights[name], vocab_size, pieces)
    config = replace(model.config, vocab_size=vocab_size)
    with torch.device("meta"):
        extended = Transformer(config)
    extended.load_state_dict(weights, assign=True)
    if config.tie_embeddings:
        extended.lm_head.weight = extended.model.embed_tokens.weight
    return extended


def _extended(old_VD: Tensor, vocab_size: int, pieces: Mapping[int, Sequence[int]]) -> Tensor:
    new_VD = old_VD.new_empty(vocab_size, old_VD.shape[1])
    new_VD[: len(old_VD)] = old_VD
    new_VD[len(old_VD) :] = old_VD.float().mean(0)
    for token_id, old_ids in pieces.items():
        new_VD[token_id] = old_VD[list(old_ids)].float().mean(0)
    return new_VD
