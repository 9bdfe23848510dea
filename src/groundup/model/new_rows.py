"""Training of the embedding and head rows of new tokens while all other rows are frozen.

A transform of a built model, like LoRA: the matrices are parametrized by their frozen and their trained rows.

Shape letters: N new tokens, V vocab, D dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations

from groundup.model.layers import Embedding
from groundup.model.transformer import Transformer


class NewRows(nn.Module):
    """A parametrization that replaces the last rows of a matrix by a trained table.

    Args:
        weight_VD: The matrix. The table is initialized with its last rows.
        first: Index of the first trained row.
    """

    def __init__(self, weight_VD: Tensor, first: int) -> None:
        super().__init__()
        self.first = first
        self.table = Embedding(len(weight_VD) - first, weight_VD.shape[1], _weight=weight_VD[first:].detach().clone())

    def forward(self, weight_VD: Tensor) -> Tensor:
        """Return the matrix with its last rows replaced."""
        return torch.cat([weight_VD[: self.first], self.table.weight])


def train_new_rows(model: Transformer, first: int) -> None:
    """Make the rows from `first` of the embeddings and the head of a frozen model trainable, in place."""
    rows = NewRows(model.lm_head.weight, first)
    embedded = rows if model.config.tie_embeddings else NewRows(model.model.embed_tokens.weight, first)
    register_parametrization(model.lm_head, "weight", rows)
    register_parametrization(model.model.embed_tokens, "weight", embedded)


def fuse_new_rows(model: Transformer) -> None:
    """Merge the rows of `train_new_rows`, if any, into their matrices, in place."""
    for module in (model.lm_head, model.model.embed_tokens):
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
