"""Bits per byte of single texts under a language model, for corpus filters."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from groundup.evaluation.bpb import bits_per_byte, encode_texts, model_nll
from groundup.hub.resolve import OpenedModel, open_model


@dataclass(frozen=True, slots=True)
class TextScorer:
    """Bits per byte of a text under the model in a directory, which each worker process loads once."""

    directory: Path

    def __call__(self, text: str) -> float:
        """Return the bits per byte of a text that is not empty.

        Args:
            text: text to score.

        Returns:
            Bits per byte.

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
        torch.set_num_threads(1)  # Each worker uses one core.
    return open_model(directory, device="cpu")
