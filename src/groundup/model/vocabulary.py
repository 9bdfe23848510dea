"""Resizing of token embeddings for a larger vocabulary.

Shape letters: V vocab, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from groundup.model.transformer import Transformer


def resize_token_embeddings(model: Transformer, vocab_size: int, pieces: Mapping[int, Sequence[int]]) -> Transformer:
    """Return the model with `vocab_size` rows in its embeddings and its head. All other weights are shared.

    The rows of a new token are initialized with the mean rows of the old tokens that it replaces. Random rows would
    take probability away from the old tokens (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language
    Models").

    Args:
        model: The model.
        vocab_size: New number of rows; at least the old one.
        pieces: Id of each new token -> ids of the old tokens that encode the same text. Rows without a token are
            initialized with the mean of all rows.
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
