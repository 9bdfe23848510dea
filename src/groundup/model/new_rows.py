"""Training of only the rows of new tokens in the token embedding and the output head, while all other rows are frozen.

Like LoRA, this changes an existing model: the weight of the module is parametrized as the concatenation of frozen and
trained rows.

Letters in tensor names: V is the vocabulary size, and D the hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations

from groundup.model.layers import Embedding
from groundup.model.transformer import Transformer


class NewRows(nn.Module):
    """Parametrization that replaces the last rows of a matrix by trainable rows.

    Args:
        weight_VD: The matrix. The trainable rows are initialized with its last rows.
        first: Index of the first trainable row.
    """

    def __init__(self, weight_VD: Tensor, first: int) -> None:
        super().__init__()
        self.first = first
        self.table = Embedding(len(weight_VD) - first, weight_VD.shape[1], _weight=weight_VD[first:].detach().clone())

    def forward(self, weight_VD: Tensor) -> Tensor:
        """Return the matrix with the trainable rows in place of its last rows."""
        return torch.cat([weight_VD[: self.first], self.table.weight])


def train_new_rows(model: Transformer, first: int) -> None:
    """Make the last rows of the token embedding and the output head of a frozen model trainable, in place.

    Args:
        model: A frozen model.
        first: Index of the first trainable row.
    """
    rows = NewRows(model.lm_head.weight, first)
    embedded = rows if model.config.tie_embeddings else NewRows(model.model.embed_tokens.weight, first)
    register_parametrization(model.lm_head, "weight", rows)
    register_parametrization(model.model.embed_tokens, "weight", embedded)


def fuse_new_rows(model: Transformer) -> None:
    """Merge the rows that `train_new_rows` made trainable into the weights, in place.

    A model that does not have such rows is not changed.
    """
    for module in (model.lm_head, model.model.embed_tokens):
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
