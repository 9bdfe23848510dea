"""The KV cache grows with the number of generated tokens, and the growth does not change the tokens.

In an earlier release, a request without `max_tokens` allocated and zeroed a KV cache for the whole context. For
SmolLM2-135M, this cache has 377 MB, and the allocation delayed the first token by half a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from groundup.inference import Engine, GenerationRequest, Sampling, complete_all
from groundup.inference.sequence import GeneratedSequence
from groundup.inference.worker import RequestState
from groundup.model import Transformer
from groundup.model.cache import INITIAL_CAPACITY, KVCache
from groundup.tokenizer import Tokenizer

CONTEXT = 4096
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size, context_length=CONTEXT)


def states_of(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[RequestState]:
    """Return a list to which the engine adds each request that it starts from now on."""
    begun: list[RequestState] = []
    begin = engine.begin

    def recorded(state: RequestState) -> GeneratedSequence:
        begun.append(state)
        return begin(state)

    monkeypatch.setattr(engine, "begin", recorded)
    return begun


def allocate_at_once(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> None:
    """Make each new cache allocate its maximum size immediately, as in earlier releases."""
    for kind in kinds:
        make = kind.__init__

        def whole(self: Any, *args: Any, make: Callable[..., None] = make) -> None:
            make(self, *args)
            self.reserve(self.max_length)

        monkeypatch.setattr(kind, "__init__", whole)


def test_a_request_without_a_limit_takes_memory_for_what_it_writes(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(model, tokenizer) as engine:
        begun = states_of(engine, monkeypatch)
        request = GenerationRequest(prompt="The with statement", sampling=GREEDY, stop_ids=())
        stream = engine.stream(request)
        for _ in range(20):
            next(stream)
        (state,) = begun
        cache = state.cache
        assert isinstance(cache, KVCache)
        engine.cancel(request.id)
        assert any(event.finish_reason == "cancelled" for event in stream)
    assert cache.max_length == CONTEXT
    # The engine may have generated some hundred tokens more than its reader has read.
    assert 0 < cache.nbytes <= 2 * INITIAL_CAPACITY * model.cache_bytes_per_token


def test_growth_changes_no_token(model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 600 tokens, the cache size is doubled twice. The log-probabilities must be bit-identical."""
    request = GenerationRequest(prompt="The with statement", max_tokens=600, seed=5, stop_ids=())
    with Engine(model, tokenizer) as engine:
        grown = engine.complete(request)
        allocate_at_once(monkeypatch, KVCache)
        whole = engine.complete(request)
    assert grown.token_ids == whole.token_ids
    assert grown.logprobs == whole.logprobs


def test_growth_of_a_batch_changes_no_token(
    model: Transformer, tokenizer: Tokenizer, real_documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caches of a batch grow at different steps."""
    text = max(real_documents, key=len)
    requests = [
        GenerationRequest(prompt=text[:length], max_tokens=tokens, seed=length, stop_ids=())
        for length, tokens in ((5, 600), (900, 300), (40, 20), (3, 280), (700, 9))
    ]
    grown = complete_all(model, tokenizer, requests, dtype="float32")
    allocate_at_once(monkeypatch, KVCache)
    whole = complete_all(model, tokenizer, requests, dtype="float32")
    assert [(each.token_ids, each.logprobs) for each in grown] == [(each.token_ids, each.logprobs) for each in whole]


def test_a_cache_is_never_larger_than_asked_for(model: Transformer) -> None:
    ids = torch.zeros((1, 300), dtype=torch.int64)
    with torch.inference_mode():
        cache = model.new_cache(1, 301)
        assert cache.nbytes == 0
        model(ids, cache=cache)
        model(ids[:, :1], cache=cache)
    assert cache.nbytes == 301 * model.cache_bytes_per_token
