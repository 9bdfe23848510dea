"""Sampling filters compared with Hugging Face's logits processors, on logits of realistic shapes."""

from __future__ import annotations

from random import Random

import pytest
import torch

from groundup.inference.sampling import Sampling, add_bias, distribution, penalize, sample

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


@pytest.mark.parametrize("seed", range(12))
def test_all_steps_together(logits: torch.Tensor, seed: int):
    """Random settings, in the order in which `generate` of transformers applies its processors."""
    random = Random(seed)
    temperature, top_k, top_p, min_p, penalty = (
        random.uniform(0.3, 2),
        random.randint(1, 300),
        random.uniform(0.3, 1),
        random.uniform(0, 0.1),
        random.uniform(0.8, 1.5),
    )
    likely = logits.topk(200).indices.tolist()
    bias = {token: random.uniform(-9, 9) for token in random.sample(likely, 20)}
    ids = torch.tensor(random.choices(likely, k=50))
    theirs = logits[None].clone()
    for processor in (
        transformers.SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()]),
        transformers.RepetitionPenaltyLogitsProcessor(penalty),
        transformers.TemperatureLogitsWarper(temperature),
        transformers.TopKLogitsWarper(top_k),
        transformers.TopPLogitsWarper(top_p),
        transformers.MinPLogitsWarper(min_p),
    ):
        theirs = processor(ids[None], theirs)
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
        logit_bias=tuple(bias.items()),
    )
    ours = distribution(penalize(add_bias(logits, sampling), sampling, ids[:20], ids[20:]), sampling)
    expected = theirs[0].softmax(-1).double()
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)
    ends = expected.cumsum(dim=-1)
    for draw in range(50):
        generator = torch.Generator().manual_seed(draw)
        token = sample(logits, sampling, ids[:20].tolist(), ids[20:].tolist(), generator)
        point = float(torch.rand((), generator=generator.manual_seed(draw), dtype=torch.float64))
        assert expected[token] > 0
        assert ends[token] - expected[token] - 1e-5 <= point <= ends[token] + 1e-5
