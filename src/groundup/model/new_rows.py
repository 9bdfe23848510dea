"""The rows of new tokens in the embeddings and the head, trained where all other rows are frozen.

A transform of a built model, as adapters are: its weights are computed from frozen and trained rows wherever they are
read. Shape letters: N new tokens, V vocab, D dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations

from groundup.model.layers import Embedding
from groundup.model.transformer import Transformer


class NewRows(nn.Module):
    """A matrix whose last rows are those of a small table of its own.

    Args:
        whole_VD: the matrix, whose last rows the table begins with.
        first: of the rows that are trained.
    """

    def __init__(self, whole_VD: Tensor, first: int) -> None:
        super().__init__()
        self.first = first
        self.table = Embedding(len(whole_VD) - first, whole_VD.shape[1], _weight=whole_VD[first:].detach().clone())

    def forward(self, whole_VD: Tensor) -> Tensor:
        return torch.cat([whole_VD[: self.first], self.table.weight])


def train_new_rows(model: Transformer, first: int) -> None:
    """Train the rows from `first` on of the embeddings and the head of a frozen model; in place."""
    rows = NewRows(model.lm_head.weight, first)
    embedded = rows if model.config.tie_embeddings else NewRows(model.model.embed_tokens.weight, first)
    register_parametrization(model.lm_head, "weight", rows)
    register_parametrization(model.model.embed_tokens, "weight", embedded)


def fuse_new_rows(model: Transformer) -> None:
    """Put such rows, if there are any, into the matrices that they belong to; in place."""
    for module in (model.lm_head, model.model.embed_tokens):
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
