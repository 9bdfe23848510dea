"""The engine with the compiled forward pass: a request gives the same tokens in every schedule."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from random import Random

import pytest
import torch

from family_shapes import small
from groundup.inference import Engine, GenerationRequest, Sampling, TokenEvent
from groundup.inference.runner import NativeRunner, make_pool
from groundup.kernels.native_decoder import BLOCK_TOKENS
from groundup.kernels.native_library import native_library
from groundup.kernels.weight_packing import WeightFormat
from groundup.model import Transformer
from groundup.model.lora import LoRA, add_lora, copy_sharing_weights
from groundup.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
GREEDY = Sampling(temperature=0)
SEEDED = Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.1)


def make_engine(
    model: Transformer, tokenizer: Tokenizer, weights: WeightFormat = "int8", threads: int = 1, cache_bytes: int = 2**26
) -> Engine:
    runner = NativeRunner(model, weights, threads=threads, pool=make_pool(cache_bytes))
    return Engine(model, tokenizer, runner=runner, max_active=16)


def make_requests(texts: list[str], count: int) -> list[GenerationRequest]:
    """Return requests of mixed lengths, greedy and seeded, some with the same beginning."""
    random = Random(0)
    requests = []
    for number in range(count):
        text = texts[number % 5][: random.randint(20, 500)]
        sampling = GREEDY if number % 2 else SEEDED
        tokens = random.randint(1, 30)
        requests.append(
            GenerationRequest(
                prompt=text, sampling=sampling, seed=number, max_tokens=tokens, stop_ids=(), id=str(number)
            )
        )
    return requests


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    """Replace the shared model, whose sizes the kernels do not support."""
    torch.manual_seed(0)
    config = small("qwen3", vocab_size=tokenizer.vocab_size, context_length=512, n_layers=2)
    model = Transformer(config).eval()
    for parameter in model.parameters():
        parameter.data *= 4 if parameter.dim() == 2 else 1  # sharper distributions, with more than one likely token
    return model


@pytest.fixture
def requests(real_documents: list[str]) -> list[GenerationRequest]:
    return make_requests(real_documents, 40)


def run_all(engine: Engine, requests: list[GenerationRequest], order: list[int]) -> dict[int, tuple[int, ...]]:
    """Return the tokens of requests that run concurrently, by index."""
    streams = {index: engine.stream(requests[index]) for index in order}
    return {
        index: tuple(event.token_id for event in stream if event.token_id is not None)
        for index, stream in streams.items()
    }


def cancel_after_one_token(streams: list[Iterator[TokenEvent]]) -> None:
    for stream in streams:
        next(stream)
        stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4"])
def test_tokens_do_not_depend_on_anything_else(
    model: Transformer, tokenizer: Tokenizer, requests: list[GenerationRequest], weights: WeightFormat
) -> None:
    """Alone with an empty cache; in batches with warm caches, cancelled neighbors, little memory, and two threads."""
    expected = []
    for request in requests:
        with make_engine(model, tokenizer, weights) as engine:
            expected.append(engine.complete(request).token_ids)
    random = Random(1)
    for threads, cache_bytes in ((1, 2**26), (2, 2**26), (2, 0)):
        with make_engine(model, tokenizer, weights, threads, cache_bytes) as engine:
            for _ in range(2):  # the second time with a warm prefix cache
                order = random.sample(range(len(requests)), len(requests))
                neighbors = [
                    engine.stream(GenerationRequest(prompt=requests[index].prompt, max_tokens=None, stop_ids=()))
                    for index in order[:4]
                ]
                canceller = threading.Thread(target=cancel_after_one_token, args=(neighbors,))
                canceller.start()
                tokens = run_all(engine, requests, order)
                canceller.join()
                assert [tokens[index] for index in range(len(requests))] == expected


def test_a_turn_computes_only_its_new_tokens(
    model: Transformer, tokenizer: Tokenizer, real_documents: list[str], computed: list[int]
) -> None:
    with make_engine(model, tokenizer) as engine:
        ids = list(tokenizer.encode(real_documents[0]))[:40]
        for turn in range(6):
            computed.clear()
            known = len(ids) if turn else 0
            ids += tokenizer.encode(real_documents[turn + 1])[:10] if turn else []
            done = engine.complete(GenerationRequest(prompt=tuple(ids), sampling=GREEDY, max_tokens=20, stop_ids=()))
            new = len(ids) - known
            assert sum(computed) <= new + 20 + BLOCK_TOKENS
            ids += done.token_ids


def test_a_request_without_memory_waits_and_is_computed_again(
    model: Transformer, tokenizer: Tokenizer, real_documents: list[str]
) -> None:
    """The cache holds only one sequence of the full context length."""
    long = [
        GenerationRequest(prompt=text[:800], sampling=GREEDY, max_tokens=150, stop_ids=(), id=str(number))
        for number, text in enumerate(real_documents[:4])
    ]
    alone = []
    for request in long:
        with make_engine(model, tokenizer) as engine:
            alone.append(engine.complete(request).token_ids)
    with make_engine(model, tokenizer, cache_bytes=0) as engine:
        tokens = run_all(engine, long, [0, 1, 2, 3])
    assert [tokens[index] for index in range(4)] == alone


def test_adapters_share_the_packed_weights(model: Transformer) -> None:
    adapted = copy_sharing_weights(model)
    add_lora(adapted, LoRA(rank=2))
    base = NativeRunner(model, "int8", threads=1)
    other = base.share(adapted)
    assert isinstance(other, NativeRunner)
    alone = NativeRunner(adapted, "int8", threads=1)
    assert other.decoder.nbytes < alone.decoder.nbytes - 0.9 * base.decoder.nbytes


def test_a_prompt_of_several_requests_is_computed_once(
    model: Transformer, tokenizer: Tokenizer, real_documents: list[str], computed: list[int]
) -> None:
    """Two clients send the same system prompt at the same time, one of them for several choices."""
    system = list(tokenizer.encode(real_documents[0]))[:200]
    prompts = [(*system, 7, 8, 9)] * 4 + [(*system, *range(20, 30))]
    with make_engine(model, tokenizer) as engine:
        streams = [
            engine.stream(GenerationRequest(prompt=prompt, sampling=SEEDED, seed=seed, max_tokens=2, stop_ids=()))
            for seed, prompt in enumerate(prompts)
        ]
        events = [list(stream) for stream in streams]
    cached = [each[0].cached_tokens for each in events]
    assert cached[0] == 0
    assert cached[1:] == [192] * 4  # full blocks of 16 tokens
    decoded = len(prompts)  # the second token of each request
    assert sum(computed) == sum(len(prompt) for prompt in prompts) - sum(cached) + decoded
