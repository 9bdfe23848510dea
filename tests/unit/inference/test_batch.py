"""Offline generation: the same tokens as single requests, in any order and number, by both runners."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random

import pytest
import torch

from family_shapes import small
from groundup.core.errors import ConfigError
from groundup.core.types import InferenceDtype
from groundup.inference import Completion, Engine, GenerationRequest, Sampling, complete_all, make_runner
from groundup.inference.runner import NativeRunner, TorchRunner
from groundup.kernels.native_library import native_library
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0)
SEEDED = Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.1)
RUNNERS = [
    "float32",
    pytest.param("bfloat16", marks=pytest.mark.skipif(native_library() is None, reason="no kernels on this machine")),
]


@pytest.fixture(scope="module")
def sharp_model(tokenizer: Tokenizer) -> Transformer:
    """A model that the kernels can compute, with many likely tokens at each position."""
    torch.manual_seed(0)
    config = small("qwen3", vocab_size=tokenizer.vocab_size, context_length=512, n_layers=2, tie_embeddings=False)
    model = Transformer(config).eval()
    for parameter in model.parameters():
        parameter.data *= 4 if parameter.dim() == 2 else 1
    return model


def outputs(completions: Iterable[Completion]) -> list[Completion]:
    """Return completions without the number of cached tokens, which depends on earlier requests."""
    return [replace(done, cached_tokens=0) for done in completions]


def mixed_requests(texts: list[str]) -> list[GenerationRequest]:
    """Return requests that begin and end at different times; prompts have one chunk, several, or a single token."""
    text = max(texts, key=len)
    lengths = [3 + 2 * number for number in range(18)] + [900, 1100, 0]
    return [
        GenerationRequest(
            prompt=text[number : number + length],
            sampling=SEEDED if number % 2 else GREEDY,
            max_tokens=5 + 7 * (number % 4),
            seed=number,
            stop_ids=(),
        )
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("dtype", RUNNERS)
def test_completions_are_bitwise_those_of_single_requests(
    sharp_model: Transformer, tokenizer: Tokenizer, real_documents: list[str], dtype: InferenceDtype
) -> None:
    """Log-probabilities are compared too: they differ in the last bits if a matmul rounds differently in a batch."""
    requests = mixed_requests(real_documents)
    with Engine(sharp_model, tokenizer, runner=make_runner(sharp_model, dtype)) as engine:
        alone = outputs(engine.complete(request) for request in requests)
    assert len({token for done in alone for token in done.token_ids}) > 50
    assert outputs(complete_all(sharp_model, tokenizer, requests, dtype=dtype)) == alone
    order = Random(1).sample(range(len(requests)), len(requests))
    with Engine(sharp_model, tokenizer, runner=make_runner(sharp_model, dtype), max_active=16) as engine:
        for max_active in (3, 40):
            together = outputs(engine.complete_all([requests[index] for index in order], max_active=max_active))
            assert [together[order.index(index)] for index in range(len(requests))] == alone
        streams = {index: engine.stream(requests[index]) for index in order}  # the worker's batches, with its queue
        events = {index: list(stream) for index, stream in streams.items()}
    served = [Completion.of(events[index], prompt_tokens=each.prompt_tokens) for index, each in enumerate(alone)]
    assert outputs(served) == alone


def test_decode_steps_of_pytorch_are_batched(
    model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [GenerationRequest(prompt="with", max_tokens=10, seed=n, stop_ids=()) for n in range(8)]
    shapes = []
    forward = model.model.forward

    def recorded(ids_BT: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        shapes.append(tuple(ids_BT.shape))
        return forward(ids_BT, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model.model, "forward", recorded)
    complete_all(model, tokenizer, requests, dtype="float32")
    assert shapes.count((8, 1)) == 9 + 2, "9 steps for all sequences, and 2 for the check of rows"
    assert all(rows == 1 for rows, tokens in shapes if tokens > 1)


def test_rows_that_round_differently_are_not_batched(
    sharp_model: Transformer, tokenizer: Tokenizer, real_documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate a matmul kernel that computes the last rows of a batch in another order."""
    linear = sharp_model.lm_head.operations.linear

    def uneven(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y = linear(x, weight, bias)
        if x.shape[0] == 8:
            y[5:] *= 1 + 1e-3
        return y

    monkeypatch.setattr(sharp_model.lm_head.operations, "linear", uneven)
    requests = mixed_requests(real_documents)[:9]
    with Engine(sharp_model, tokenizer) as engine:
        alone = [engine.complete(request) for request in requests]
        assert engine.complete_all(requests) == alone


def test_stop_texts_and_context_end(model: Transformer, tokenizer: Tokenizer) -> None:
    long = GenerationRequest(prompt="The with statement", sampling=GREEDY, stop_ids=())
    ended: list[float] = []
    whole, short = complete_all(model, tokenizer, [long, replace(long, max_tokens=3)], advance=ended.append)
    assert whole.finish_reason == "length"
    assert whole.prompt_tokens + len(whole.token_ids) == model.config.context_length
    assert short.token_ids == whole.token_ids[:3]
    stop = whole.text[10:14]
    (stopped,) = complete_all(model, tokenizer, [replace(long, stop=(stop,))])
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert sum(ended) == 2


def test_no_requests_give_no_completions(model: Transformer, tokenizer: Tokenizer) -> None:
    assert complete_all(model, tokenizer, []) == []


def test_a_failed_request_raises_its_error_and_frees_the_cache(sharp_model: Transformer, tokenizer: Tokenizer) -> None:
    long = GenerationRequest(prompt="with", max_tokens=300, stop_ids=())
    with Engine(sharp_model, tokenizer, runner=make_runner(sharp_model)) as engine:
        with pytest.raises(ConfigError, match="must fit into the context"):
            engine.complete_all([long, replace(long, prompt=(5,) * 512)])

        def stop(_: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.complete_all([long, replace(long, max_tokens=2)], advance=stop)
        runner = engine._runner
        if isinstance(runner, NativeRunner):
            assert runner.pool._unused_bytes == runner.pool.nbytes
        assert len(engine.complete_all([long])[0].token_ids) == 300


def test_the_current_weights_are_used(sharp_model: Transformer, tokenizer: Tokenizer) -> None:
    """Samples during a training come from its weights, which the kernels copy."""
    request = GenerationRequest(prompt="with", sampling=GREEDY, max_tokens=8, stop_ids=())
    before = complete_all(sharp_model, tokenizer, [request])
    weight = sharp_model.model.norm.weight
    with torch.no_grad():
        weight.neg_()
        after = complete_all(sharp_model, tokenizer, [request])
        weight.neg_()
    assert before != after
    assert complete_all(sharp_model, tokenizer, [request]) == before


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt2"])
def test_a_batch_of_pytorch_gives_the_argmax_of_the_uncached_model(
    tokenizer: Tokenizer, real_documents: list[str], family: str
) -> None:
    """Sliding windows, softcapped attention and learned positions, with sequences of different lengths."""
    torch.manual_seed(0)
    config = small(family, vocab_size=tokenizer.vocab_size, context_length=128)
    model = Transformer(config).eval()
    ids = tokenizer.encode(max(real_documents, key=len))
    requests = [
        GenerationRequest(prompt=(tokenizer.bos_id, *ids[:n]), sampling=GREEDY, max_tokens=12, stop_ids=())
        for n in (3, 60, 21)
    ]
    together = TorchRunner(model)
    with Engine(model, tokenizer, runner=together) as engine, torch.inference_mode():
        for request, done in zip(requests, engine.complete_all(requests), strict=True):
            seen = list(request.prompt)
            for token in done.token_ids:
                logits_V = model(torch.tensor([seen]))[0, -1, : tokenizer.vocab_size]
                assert float(logits_V[token]) == pytest.approx(float(logits_V.max()), abs=1e-5)
                seen.append(token)


def test_memory_limits_the_batch_of_pytorch(tiny_model: Callable[..., Transformer], tokenizer: Tokenizer) -> None:
    runner = TorchRunner(tiny_model(tokenizer.vocab_size, context_length=4096))
    bytes_per_token = runner._model.cache_bytes_per_token
    assert runner.max_sequences(4096) == 2**30 // (4096 * bytes_per_token)
    assert runner.max_sequences(2**40) == 1
