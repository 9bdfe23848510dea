"""A model that is still being trained, as its newest checkpoint has it."""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.core.errors import DataError
from groundup.core.files import read_json
from groundup.hub import load_newest_state
from groundup.hub.resolve import OpenedModel
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer
from groundup.train.planner import Plan


def open_live(directory: Path) -> OpenedModel:
    """Read the newest checkpoint of a pretraining run, on the CPU: the machine's GPU is busy with it.

    Args:
        directory: of the stage; its vocabulary lies beside it.

    Raises:
        DataError: no checkpoint yet, or no vocabulary.
        FormatError: they are damaged.
    """
    state = load_newest_state(directory / "checkpoints")
    if state is None:
        raise DataError(
            f"{directory}: no checkpoint yet",
            rule="what is looked into has been saved once",
            fix="Wait a little: checkpoint_seconds of the recipe says how long.",
        )
    tokenizer = Tokenizer.load(directory.parent / "tokens" / "tokenizer")
    plan = Plan.from_json(read_json(directory / "plan.json")["plan"])
    model = Transformer(plan.model)
    with torch.no_grad():
        held = state.groups["model"]
        for name, tensor in model.named_parameters():  # each once: a checkpoint has a tied head as the embeddings
            tensor.copy_(held[name])
    return OpenedModel(directory, model.eval().requires_grad_(False), tokenizer, tokenizer.stop_ids)
