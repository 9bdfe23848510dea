"""Functions that write token shards with random ids, and read random windows from token shards.

All programs read the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.pretrain.shapes import Shape
from groundup.data import TokenShards, write_shards

_DOCUMENTS = 2000
_MEAN_LENGTH = 600  # mean document length in tokens, about one page of an encyclopedia

RandomWindows = Callable[[], tuple[Tensor, Tensor]]


def write_random_tokens(directory: Path, vocab_size: int) -> None:
    """Write token shards with random ids. Document lengths have a lognormal distribution.

    The ids do not affect the speed of training, but the document lengths can affect it.
    """
    generator = np.random.default_rng(0)
    lengths = np.maximum(1, generator.lognormal(np.log(_MEAN_LENGTH) - 0.5, 1.0, _DOCUMENTS)).astype(int)

    def encode(texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [generator.integers(1, vocab_size, len(text)).astype(np.uint32) for text in texts]

    texts = ["x" * length for length in lengths]
    write_shards(directory, {"train": texts, "validation": texts[:1]}, encode, vocab_size=vocab_size, bos_id=0)


def random_windows(tokens: Path, shape: Shape, seed: int, device: str) -> RandomWindows:
    """Return a function that creates batches as nanoGPT does.

    A batch consists of random windows of the concatenated documents. Each document starts with a BOS token.

    Returns:
        A function that returns inputs and targets as int64 tensors of shape (rows, context).
    """
    shards = TokenShards(tokens, "train")
    bos = np.array([shards.bos_id])
    stream = np.concatenate(
        [part for number in range(shards.n_documents) for part in (bos, shards.document(number))]
    ).astype(np.int32)
    generator = torch.Generator().manual_seed(seed)

    def batch() -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(stream) - shape.context, (shape.rows,), generator=generator).tolist()
        rows = np.stack([stream[start : start + shape.context + 1] for start in starts]).astype(np.int64)
        windows = torch.from_numpy(rows).to(device)
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    return batch
