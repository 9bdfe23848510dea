"""Log-probabilities and embeddings of prompts: equal to the model's own, and bitwise equal in every schedule."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from family_shapes import small
from groundup.core.errors import ConfigError
from groundup.inference import Completion, Engine, GenerationRequest, Sampling
from groundup.inference.likelihood import loglikelihoods
from groundup.inference.runner import NativeRunner, make_pool
from groundup.kernels.native_decoder import BLOCK_TOKENS
from groundup.kernels.native_library import native_library
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

needs_kernels = pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    """A model that the kernels can compute, with padding rows in its vocabulary."""
    torch.manual_seed(0)
    model = Transformer(small("qwen3", vocab_size=tokenizer.vocab_size + 40, context_length=512, n_layers=2)).eval()
    for parameter in model.parameters():
        parameter.data *= 4 if parameter.dim() == 2 else 1
    return model


@pytest.fixture
def prompts(real_documents: list[str], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Prompts of 1 to 511 tokens. Some have the same beginning."""
    random = Random(0)
    ids = [tuple(tokenizer.encode("".join(real_documents[number::5])))[:511] for number in range(5)]
    assert min(map(len, ids)) == 511
    lengths = [1, 2, BLOCK_TOKENS, BLOCK_TOKENS + 1, 257, 511]
    return [ids[number % 5][: (lengths + [random.randint(3, 300)] * 6)[number % 12]] for number in range(24)]


def logprobs_of(model: Transformer, tokenizer: Tokenizer, ids: tuple[int, ...]) -> torch.Tensor:
    """Return the log-probabilities (T, V) of the next token, without padding."""
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0].log_softmax(-1)[:, : tokenizer.vocab_size]


@pytest.mark.parametrize("start", [0, 1, 100])
def test_log_probabilities_equal_a_forward_pass(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]], start: int
) -> None:
    ids = prompts[5]
    with Engine(model, tokenizer) as engine:
        request = GenerationRequest(
            prompt=ids, max_tokens=1, sampling=GREEDY, prompt_logprobs=3, prompt_logprobs_start=start, stop_ids=()
        )
        done = engine.complete(request)
        alone = engine.complete(GenerationRequest(prompt=ids, max_tokens=1, sampling=GREEDY, stop_ids=()))
    expected_TV = logprobs_of(model, tokenizer, ids)
    found = done.prompt_logprobs
    assert [each.token_id for each in found] == list(ids[start:])
    assert (found[0].logprob is None) == (start == 0)
    for place, each in list(enumerate(found, start))[start == 0 :]:
        assert each.logprob == pytest.approx(float(expected_TV[place - 1, ids[place]]), abs=1e-4)
        top = expected_TV[place - 1].topk(3)
        assert [logprob for _, logprob in each.top_logprobs] == pytest.approx(top.values.tolist(), abs=1e-4)
    assert (done.token_ids, done.logprobs) == (alone.token_ids, alone.logprobs)


def test_the_sum_equals_the_scorer_of_evaluation(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]]
) -> None:
    """Without generated tokens, a prompt may fill the context."""
    with Engine(model, tokenizer) as engine:
        for ids in (prompts[4], (*prompts[5], 7)):
            request = GenerationRequest(prompt=ids, max_tokens=0, prompt_logprobs=0, prompt_logprobs_start=50)
            done = engine.complete(request)
            assert (done.text, done.token_ids, done.finish_reason) == ("", (), "length")
            total = sum(each.logprob or 0 for each in done.prompt_logprobs)
            [expected] = loglikelihoods(model, [(ids[:50], ids[50:])])
            assert total == pytest.approx(expected, rel=1e-5)


def test_an_embedding_is_the_normalized_mean_of_the_hidden_states(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]]
) -> None:
    with Engine(model, tokenizer) as engine:
        for ids in prompts[:6]:
            embedding = engine.complete(GenerationRequest(prompt=ids, max_tokens=0, embedding=True)).embedding
            with torch.inference_mode():
                mean_D = model.model(torch.tensor([ids]))[0].mean(dim=0)
            assert embedding is not None
            torch.testing.assert_close(embedding, mean_D / mean_D.norm(), atol=1e-5, rtol=1e-4)


def outputs(done: Completion) -> Any:
    embedding = None if done.embedding is None else done.embedding.tolist()
    return done.token_ids, done.logprobs, done.prompt_logprobs, embedding


@needs_kernels
def test_outputs_do_not_depend_on_the_schedule(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]]
) -> None:
    """Alone; in batches with warm caches, with little memory, so that requests are computed again, and two threads."""

    def start(threads: int, cache_bytes: int) -> Engine:
        runner = NativeRunner(model, "int8", threads=threads, pool=make_pool(cache_bytes))
        return Engine(model, tokenizer, runner=runner, max_active=16)

    kinds: list[dict[str, Any]] = [
        {"max_tokens": 0, "embedding": True},
        {"max_tokens": 0, "prompt_logprobs": 2},
        {"max_tokens": 1, "prompt_logprobs": 0, "stop_ids": (), "seed": 1},
        {"max_tokens": 9, "stop_ids": (), "seed": 2},
        {"max_tokens": 0, "prompt_logprobs": 1, "prompt_logprobs_start": 1},
    ]
    requests = [GenerationRequest(prompt=ids, **kinds[number % 5]) for number, ids in enumerate(prompts)]
    expected = []
    for request in requests:
        with start(1, 2**26) as engine:
            expected.append(outputs(engine.complete(request)))
    random = Random(1)
    for threads, cache_bytes in ((1, 2**26), (2, 0)):
        with start(threads, cache_bytes) as engine:
            for _ in range(2):
                order = random.sample(range(len(requests)), len(requests))
                streams = {index: engine.stream(requests[index]) for index in order}
                events = {index: list(stream) for index, stream in streams.items()}
                done = [
                    Completion.of(events[index], prompt_tokens=len(request.prompt))
                    for index, request in enumerate(requests)
                ]
                assert [outputs(each) for each in done] == expected


@needs_kernels
def test_a_prompt_has_the_log_probabilities_of_the_same_generated_tokens(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]]
) -> None:
    with Engine(model, tokenizer, runner=NativeRunner(model, "bfloat16", threads=1)) as engine:
        for ids in (prompts[0], prompts[3], prompts[4]):
            made = engine.complete(GenerationRequest(prompt=ids, max_tokens=40, seed=0, stop_ids=()))
            whole = (*ids, *made.token_ids)
            for start in (0, len(ids)):
                request = GenerationRequest(prompt=whole, max_tokens=0, prompt_logprobs=0, prompt_logprobs_start=start)
                scored = engine.complete(request).prompt_logprobs
                assert tuple(each.logprob for each in scored[len(ids) - start :]) == made.logprobs


@needs_kernels
def test_embeddings_of_the_kernels_are_close_to_pytorch(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]]
) -> None:
    request = GenerationRequest(prompt=prompts[4], max_tokens=0, embedding=True)
    with Engine(model, tokenizer, runner=NativeRunner(model, "bfloat16", threads=1)) as engine:
        embedding = engine.complete(request).embedding
    with Engine(model, tokenizer) as engine:
        expected = engine.complete(request).embedding
    assert embedding is not None and expected is not None
    assert float(embedding @ expected) > 0.999
    assert float(embedding.norm()) == pytest.approx(1, abs=1e-6)


@needs_kernels
@pytest.mark.parametrize("length", [100, 400])
def test_choices_compute_their_prompt_once(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]], computed: list[int], length: int
) -> None:
    """The choices are submitted at the same time, when the cache is empty."""
    ids = prompts[5][:length]
    with Engine(model, tokenizer, runner=NativeRunner(model, "int8", threads=1)) as engine:
        hot = Sampling(temperature=9)
        requests = [
            GenerationRequest(prompt=ids, sampling=hot, max_tokens=5, stop_ids=(), seed=seed) for seed in range(8)
        ]
        streams = [engine.stream(request) for request in requests]
        events = [list(stream) for stream in streams]
    assert len({tuple(event.token_id for event in each) for each in events}) == 8
    assert sum(computed) <= length + 8 * BLOCK_TOKENS + 8 * 5


@needs_kernels
def test_embeddings_leave_the_prefix_cache_to_others(
    model: Transformer, tokenizer: Tokenizer, prompts: list[tuple[int, ...]], computed: list[int]
) -> None:
    with Engine(model, tokenizer, runner=NativeRunner(model, "int8", threads=1, pool=make_pool(0))) as engine:
        chat = GenerationRequest(prompt=prompts[4], max_tokens=1, stop_ids=())
        engine.complete(chat)
        for ids in prompts[5:]:
            engine.complete(GenerationRequest(prompt=ids[:200], max_tokens=0, embedding=True))
        computed.clear()
        engine.complete(GenerationRequest(prompt=prompts[4], max_tokens=1, stop_ids=()))
        assert sum(computed) <= BLOCK_TOKENS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": -1}, "0 or more"),
        ({"max_tokens": 4, "embedding": True}, "no other output"),
        ({"max_tokens": 0, "embedding": True, "prompt_logprobs": 1}, "no other output"),
        ({"prompt_logprobs": -1}, "0 or more"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenerationRequest(prompt="x", **options)


def test_the_start_must_be_in_the_prompt(model: Transformer, tokenizer: Tokenizer) -> None:
    request = GenerationRequest(prompt=(1, 2), max_tokens=0, prompt_logprobs=0, prompt_logprobs_start=2)
    with Engine(model, tokenizer) as engine, pytest.raises(ConfigError, match="index of the prompt"):
        engine.complete(request)
