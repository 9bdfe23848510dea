"""A model as a judge of texts: how many bits per byte each of them costs it."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from groundup.evaluation.bpb import bits_per_byte, encode_texts, model_nll
from groundup.hub.resolve import OpenedModel, open_model


@dataclass(frozen=True, slots=True)
class ModelJudge:
    """Bits per byte of one text under the model of a directory. It travels to worker processes, which each open it."""

    directory: Path

    def __call__(self, text: str) -> float:
        """Bits per byte of a text that is not empty.

        Raises:
            FormatError: the model is damaged.
        """
        opened = _opened(self.directory)
        score = bits_per_byte(
            model_nll(opened.model),
            encode_texts([text], opened.tokenizer),
            context_length=opened.model.config.context_length,
            bos_id=opened.tokenizer.bos_id,
        )
        return score.bpb


@lru_cache(maxsize=1)
def _opened(directory: Path) -> OpenedModel:
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the workers share the cores already
    return open_model(directory, device="cpu")
