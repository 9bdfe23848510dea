"""Mapping between groundup's parameter names and the tensor names in Hugging Face files.

The module `config_json` converts model configs.
"""

from __future__ import annotations

from collections.abc import Iterator

from groundup.model import ModelConfig
from groundup.model.families.base import Head
from groundup.model.weight_map import HEAD, Weight, expand, renamed, same

__all__ = ["Head", "weight_table"]


def weight_table(config: ModelConfig, head: Head = "language") -> Iterator[Weight]:
    """Yield each tensor of a model's weight files, with the operations that convert it to groundup's parameters.

    The output head is omitted if it is tied to the embedding.
    """
    names = config.declared.huggingface
    table = names.weights(config)
    if head == "labels":
        table += same("score.weight")
    elif not config.tie_embeddings:
        table += renamed({HEAD: names.head})
    return expand(table, config.n_layers)
