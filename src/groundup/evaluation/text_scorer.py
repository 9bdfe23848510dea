"""Bits per byte that a language model assigns to a single text, which corpus filters use."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from groundup.evaluation.bpb import bits_per_byte, encode_texts, model_nll
from groundup.hub.loading import OpenedModel, open_model


@dataclass(frozen=True, slots=True)
class TextScorer:
    """Computes the bits per byte that the model in `directory` assigns to a text.

    Each worker process loads the model once.
    """

    directory: Path

    def __call__(self, text: str) -> float:
        """Return the bits per byte of a text.

        Args:
            text: text to score, which must not be empty.

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
        torch.set_num_threads(1)  # Worker processes run in parallel, so each one uses a single core.
    return open_model(directory, device="cpu")
