"""A trained model for more tokens than it was trained with.

Shape letters: V vocab, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from groundup.model.transformer import Transformer


def with_vocabulary(model: Transformer, vocab_size: int, pieces: Mapping[int, Sequence[int]]) -> Transformer:
    """The same model with `vocab_size` rows in its embeddings and its head; the weights of all else are shared.

    A new token begins as the mean of the pieces that the model knew it by, in both matrices: it means about what they
    mean together, and is about as likely as they are (Hewitt 2021, "Initializing New Word Embeddings for Pretrained
    Language Models", showed that random rows take the probability away from the old tokens).

    Args:
        pieces: of each new token, the ids of the old ones that it is made of; rows of no token begin as the mean of
            all.
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
    for token_id, known in pieces.items():
        new_VD[token_id] = old_VD[list(known)].float().mean(0)
    return new_VD
