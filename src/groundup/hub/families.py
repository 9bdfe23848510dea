"""The weight table between groundup's state dict and Hugging Face files; `config.json` is in `config_json`."""

from __future__ import annotations

from collections.abc import Iterator

from groundup.model import ModelConfig
from groundup.model.families.base import Head
from groundup.model.weight_map import HEAD, Weight, expand, renamed, same

__all__ = ["Head", "weight_table"]


def weight_table(config: ModelConfig, head: Head = "language") -> Iterator[Weight]:
    """Yield each tensor of a model's files with its operations. A tied head is omitted, because it is the embedding."""
    names = config.declared.huggingface
    table = names.weights(config)
    if head == "labels":
        table += same("score.weight")
    elif not config.tie_embeddings:
        table += renamed({HEAD: names.head})
    return expand(table, config.n_layers)
