"""Batched generation gives the same tokens as single requests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from groundup.inference import Engine, GenerationRequest, Sampling, complete_all
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0)


@pytest.mark.parametrize("places", [1, 3, 16])
def test_a_batch_gives_what_the_engine_gives(
    model: Transformer, tokenizer: Tokenizer, real_documents: list[str], places: int
):
    """Sequences have different lengths and end at different times, so off-by-one positions and masks change tokens."""
    text = max(real_documents, key=len)
    requests = [
        GenerationRequest(
            prompt=text[i : 2 * i + 3 + 400 * (i == 4)], sampling=GREEDY, max_tokens=5 + 7 * (i % 4), seed=i
        )
        for i in range(9)
    ]
    with Engine(model, tokenizer) as engine:
        alone = [engine.complete(request) for request in requests]
    together = complete_all(model, tokenizer, requests, batch_size=places)
    assert [done.token_ids for done in together] == [done.token_ids for done in alone]
    assert [done.text for done in together] == [done.text for done in alone]
    assert together[3].logprobs == pytest.approx(alone[3].logprobs, abs=1e-4)


def test_stop_texts_and_context_end(model: Transformer, tokenizer: Tokenizer):
    long = GenerationRequest(prompt="The with statement", sampling=GREEDY, stop_ids=())
    ended = []
    whole, short = complete_all(model, tokenizer, [long, replace(long, id="other", max_tokens=3)], advance=ended.append)
    assert whole.finish_reason == "length"
    assert whole.prompt_tokens + len(whole.token_ids) == model.config.context_length
    assert short.token_ids == whole.token_ids[:3]
    stop = whole.text[10:14]
    (stopped,) = complete_all(model, tokenizer, [replace(long, id="third", stop=(stop,))])
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert sum(ended) == 2


def test_no_requests_give_no_completions(model: Transformer, tokenizer: Tokenizer):
    assert complete_all(model, tokenizer, []) == []


def test_sliding_windows_in_a_batch(tiny_model, tokenizer: Tokenizer, real_documents: list[str]):
    """A mask relative to the longest sequence would include data after the end of a shorter one."""
    model = tiny_model(
        tokenizer.vocab_size, family="mistral", context_length=128, sliding_window=16, tie_embeddings=False
    )
    ids = tokenizer.encode(max(real_documents, key=len))
    requests = [
        GenerationRequest(prompt=(tokenizer.bos_id, *ids[:n]), sampling=GREEDY, max_tokens=12) for n in (3, 60, 21)
    ]
    together = complete_all(model, tokenizer, requests)
    for request, done in zip(requests, together, strict=True):
        seen = list(request.prompt)
        for token in done.token_ids:
            assert token == int(model(torch.tensor([seen]))[0, -1].argmax())
            seen.append(token)
