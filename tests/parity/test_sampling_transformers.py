"""Sampling filters compared with Hugging Face's logits processors, on logits of realistic shapes."""

from __future__ import annotations

import pytest
import torch

from groundup.inference.sampling import Sampling, distribution, penalize

transformers = pytest.importorskip("transformers")

VOCAB = 4096
NOTHING = torch.empty(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return 3 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ("TemperatureLogitsWarper", {"temperature": 0.7}),
        ("TopKLogitsWarper", {"top_k": 40}),
        ("TopPLogitsWarper", {"top_p": 0.9}),
        ("TopPLogitsWarper", {"top_p": 0.01}),
        ("MinPLogitsWarper", {"min_p": 0.05}),
    ],
)
def test_filters(logits: torch.Tensor, processor: str, options: dict[str, float]):
    theirs = getattr(transformers, processor)(*options.values())(None, logits[None].clone())[0].softmax(-1)
    torch.testing.assert_close(distribution(logits, Sampling(**options)), theirs.double(), atol=1e-6, rtol=1e-5)


def test_repetition_penalty(logits: torch.Tensor):
    ids = torch.tensor([3, 5, 5, 700])
    theirs = transformers.RepetitionPenaltyLogitsProcessor(1.3)(ids[None], logits[None].clone())[0]
    torch.testing.assert_close(penalize(logits, Sampling(repetition_penalty=1.3), ids[:2], ids[2:]), theirs)
