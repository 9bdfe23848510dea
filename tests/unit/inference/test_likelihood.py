"""Log-likelihoods: single, batched, and with a shared prompt."""

from __future__ import annotations

import pytest
import torch

from groundup.inference.likelihood import loglikelihoods, shared_prompt_loglikelihoods
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer, real_documents: list[str]) -> list[list[int]]:
    text = tokenizer.encode(max(real_documents, key=len))
    return [text[start : start + length] for start, length in ((0, 1), (40, 17), (90, 300), (500, 64))]


def test_batched_equals_single(model: Transformer, prompts: list[list[int]]) -> None:
    """Texts of different lengths reveal off-by-one labels and scored padding."""
    pairs = [(prompt, after) for prompt in prompts for after in ([5], [7, 9, 11], prompt[:40])]
    expected = []
    for before, after in pairs:
        logits_TV = model(torch.tensor([[*before, *after]]))[0].double().log_softmax(-1)
        expected.append(sum(float(logits_TV[len(before) - 1 + n, token]) for n, token in enumerate(after)))
    seen: list[int] = []
    assert loglikelihoods(model, pairs, advance=seen.append) == pytest.approx(expected, rel=1e-5)
    assert sum(seen) == len(pairs)


def test_shared_prompt_equals_separate_prompts(model: Transformer, prompts: list[list[int]]) -> None:
    """Tokens of one continuation in the cache would change the score of the next one."""
    after = [[5], [7, 9, 11], [7, 9, 12], [5], [3, 3]]
    for prompt in prompts:
        together = shared_prompt_loglikelihoods(model, prompt, after)
        assert together == pytest.approx(loglikelihoods(model, [(prompt, ids) for ids in after]), rel=1e-5)
        assert together[0] == together[3]
