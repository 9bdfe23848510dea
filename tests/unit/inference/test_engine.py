"""The engine: outputs equal the uncached model, and requests do not affect each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from groundup.core.errors import ConfigError, ResourceError
from groundup.inference import Engine, GenerationRequest, Sampling, TokenEvent
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0)
PROMPT = "The with statement is used to wrap"


def never_ending(**options: object) -> GenerationRequest:
    """Return a request without stop tokens, which ends at the context limit of 512."""
    return GenerationRequest(prompt=PROMPT, max_tokens=None, stop_ids=(), seed=1, **options)  # type: ignore[arg-type]


def uncached_logprobs(model: Transformer, ids: list[int], tokenizer: Tokenizer) -> torch.Tensor:
    """Return log-probabilities of one forward pass without cache, chunks and engine.

    They are normalized over all logits, but the ids that are only padding cannot be sampled.
    """
    return model(torch.tensor([ids]))[0, -1].log_softmax(-1)[: tokenizer.vocab_size]


@pytest.mark.parametrize("n_prompt", [1, 7, 256, 257, 300])
def test_greedy_is_the_argmax_of_the_uncached_model(
    engine: Engine, model: Transformer, tokenizer: Tokenizer, real_documents: list[str], n_prompt: int
):
    """Prompt lengths around 256 give one prefill chunk, a second chunk with one token, and two full chunks."""
    ids = [tokenizer.bos_id, *tokenizer.encode(max(real_documents, key=len))][:n_prompt]
    done = engine.complete(
        GenerationRequest(prompt=tuple(ids), sampling=GREEDY, max_tokens=12, stop_ids=(), logprobs=3)
    )
    for token, logprob in zip(done.token_ids, done.logprobs, strict=True):
        logprobs = uncached_logprobs(model, ids, tokenizer)
        assert token == int(logprobs.argmax())
        assert logprob == pytest.approx(float(logprobs[token]), abs=1e-4)
        ids.append(token)


def test_a_text_prompt_begins_with_bos(engine: Engine, tokenizer: Tokenizer):
    """Each training document starts with BOS, so a prompt without it is out of distribution."""
    as_text = engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=8, seed=3))
    ids = (tokenizer.bos_id, *tokenizer.encode(PROMPT))
    assert as_text.token_ids == engine.complete(GenerationRequest(prompt=ids, max_tokens=8, seed=3)).token_ids
    assert as_text.prompt_tokens == len(ids)


def test_the_empty_prompt_generates_a_document(engine: Engine):
    assert engine.complete(GenerationRequest(prompt="", max_tokens=3)).prompt_tokens == 1


def test_special_tokens_typed_by_a_user_stay_text(engine: Engine, tokenizer: Tokenizer):
    done = engine.complete(GenerationRequest(prompt="<|endoftext|>", max_tokens=1))
    assert done.prompt_tokens > 2, "the prompt was read as BOS and one special token"


async def collect(events: AsyncIterator[TokenEvent]) -> list[TokenEvent]:
    return [event async for event in events]


def test_concurrent_requests_give_the_same_tokens(model: Transformer, tokenizer: Tokenizer):
    """Only concurrent requests reveal a shared generator, cache or position."""
    requests = [
        GenerationRequest(prompt=PROMPT[: 5 + 3 * i], max_tokens=20 + i, seed=i, sampling=Sampling(top_p=0.9))
        for i in range(6)
    ]
    with Engine(model, tokenizer) as engine:
        alone = [engine.complete(request).token_ids for request in requests]

    async def together(engine: Engine) -> list[list[TokenEvent]]:
        return await asyncio.gather(*(collect(engine.submit(request)) for request in requests))

    with Engine(model, tokenizer, max_active=3) as engine:  # three requests have to wait
        streams = asyncio.run(together(engine))
    assert [tuple(event.token_id for event in events) for events in streams] == alone
    assert all(event.request_id == r.id for r, events in zip(requests, streams, strict=True) for event in events)
    assert len(set(alone)) == len(alone)


def test_two_models_on_one_worker(model: Transformer, tiny_model: Callable[..., Transformer], tokenizer: Tokenizer):
    """Both models share the request limits, and each sequence is run by its own model."""
    other = tiny_model(tokenizer.vocab_size, n_layers=1)
    requests = [GenerationRequest(prompt=PROMPT, sampling=GREEDY, max_tokens=12, stop_ids=()) for _ in range(4)]
    with Engine(model, tokenizer) as one, Engine(other, tokenizer) as two:
        alone = [one.complete(requests[0]).token_ids, two.complete(requests[0]).token_ids]
    with Engine(model, tokenizer, max_active=2, max_waiting=2) as one:
        two = one.share_worker(other, tokenizer)
        endless = [one.stream(never_ending()), one.stream(never_ending())]
        for stream in endless:
            next(stream)  # both have left the queue
        streams = [two.stream(requests[0]), one.stream(requests[1])]
        with pytest.raises(ResourceError, match="2 requests are waiting"):
            two.submit(requests[2])
        for stream in endless:
            stream.close()
        assert [tuple(event.token_id for event in stream) for stream in streams] == alone[::-1]
        assert alone[0] != alone[1]
    with pytest.raises(ResourceError, match="closed"):
        two.submit(requests[3])


def test_seeds(engine: Engine):
    """Output depends on the seed, not on torch's global generator, whose state does not change."""
    request = GenerationRequest(prompt=PROMPT, max_tokens=20, seed=5)
    torch.manual_seed(1)
    first = engine.complete(request).token_ids
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert engine.complete(request).token_ids == first
    assert engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=20, seed=6)).token_ids != first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_streamed_texts_join_to_the_decoded_text(engine: Engine, tokenizer: Tokenizer):
    """A random model generates invalid UTF-8, so partial characters must be buffered and decoded."""
    events = list(engine.stream(GenerationRequest(prompt=PROMPT, max_tokens=200, stop_ids=(), seed=2)))
    ids = [event.token_id for event in events if event.token_id is not None]
    assert "".join(event.text for event in events) == tokenizer.decode(ids)
    assert [event.finish_reason for event in events] == [None] * 199 + ["length"]


def test_logprobs_include_the_softcap(tiny_model: Callable[..., Transformer], tokenizer: Tokenizer):
    """The engine computes logits of the last token separately, and once omitted the softcap."""
    model = tiny_model(tokenizer.vocab_size, family="gemma3", logit_softcap=0.05)
    ids = tokenizer.encode(PROMPT)
    expected = model(torch.tensor([ids]))[0, -1].log_softmax(-1).max()
    with Engine(model, tokenizer) as engine:
        done = engine.complete(GenerationRequest(prompt=tuple(ids), max_tokens=1, logprobs=1, sampling=GREEDY))
    assert done.logprobs[0] == pytest.approx(float(expected), abs=1e-4)


def test_logprobs_are_before_temperature_and_filters(engine: Engine, model: Transformer, tokenizer: Tokenizer):
    """After filters, each greedy token would have probability 1."""
    request = GenerationRequest(prompt=PROMPT, max_tokens=1, logprobs=4, sampling=Sampling(temperature=0.1, top_k=1))
    [event] = engine.stream(request)
    ids = [tokenizer.bos_id, *tokenizer.encode(PROMPT)]
    expected = uncached_logprobs(model, ids, tokenizer).sort(descending=True)
    assert [token for token, _ in event.top_logprobs] == expected.indices[:4].tolist()
    assert [logprob for _, logprob in event.top_logprobs] == pytest.approx(expected.values[:4].tolist(), abs=1e-4)


def test_a_stop_text_that_spans_tokens(engine: Engine):
    """The stop text starts inside one token and ends inside another, and no part of it is returned."""
    whole = list(engine.stream(never_ending(sampling=Sampling(top_k=40))))
    texts = [event.text for event in whole]
    at = next(i for i in range(20, len(texts)) if all(len(t) > 1 and t.isascii() for t in texts[i : i + 3]))
    stop = texts[at][1:] + texts[at + 1] + texts[at + 2][:1]
    events = list(engine.stream(never_ending(sampling=Sampling(top_k=40), stop=(stop,))))
    assert "".join(event.text for event in events) == "".join(texts).partition(stop)[0]
    assert events[-1].finish_reason == "stop"
    assert len(events) < len(whole)


def test_a_stop_token_ends_without_text(engine: Engine, tokenizer: Tokenizer):
    whole = engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=30, stop_ids=(), seed=4))
    last = whole.token_ids[20]
    first_seen = whole.token_ids.index(last)
    done = engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=30, stop_ids=(last,), seed=4))
    assert done.finish_reason == "stop"
    assert done.token_ids == whole.token_ids[: first_seen + 1]
    assert done.text == tokenizer.decode(done.token_ids[:-1])


def test_engine_stop_ids_are_the_default(model: Transformer, tokenizer: Tokenizer):
    every_id = tuple(range(tokenizer.vocab_size))
    with Engine(model, tokenizer, stop_ids=every_id) as engine:
        assert len(engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=9)).token_ids) == 1
        assert len(engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=9, stop_ids=())).token_ids) == 9


def test_the_context_is_the_limit(engine: Engine, model: Transformer):
    done = engine.complete(never_ending())
    assert done.finish_reason == "length"
    assert done.prompt_tokens + len(done.token_ids) == model.config.context_length


def test_a_prompt_longer_than_the_context_is_an_error(engine: Engine, tokenizer: Tokenizer):
    """Truncation would change the question, so the error states both lengths."""
    with pytest.raises(ConfigError, match=r"512 tokens.*context of 512"):
        engine.complete(GenerationRequest(prompt=(tokenizer.bos_id,) * 512))
    assert len(engine.complete(GenerationRequest(prompt=(tokenizer.bos_id,) * 511)).token_ids) == 1


def test_ids_outside_the_vocabulary_are_errors(engine: Engine, tokenizer: Tokenizer):
    """The embedding has untrained padding rows for them."""
    with pytest.raises(ConfigError, match=str(tokenizer.vocab_size)):
        engine.submit(GenerationRequest(prompt=(tokenizer.vocab_size,)))


def test_cancel_ends_a_request(engine: Engine):
    request = never_ending()
    events = engine.stream(request)
    next(events)
    assert engine.cancel(request.id)
    *_, last = events
    assert (last.finish_reason, last.token_id) == ("cancelled", None)
    assert not engine.cancel(request.id), "it is gone"


def test_cancelling_a_queued_request(model: Transformer, tokenizer: Tokenizer):
    with Engine(model, tokenizer, max_active=1) as engine:
        running = engine.stream(never_ending())
        next(running)  # not read further, so it pauses with a full event queue and never ends
        waiting = never_ending()
        events = engine.stream(waiting)
        engine.cancel(waiting.id)
        assert [event.finish_reason for event in events] == ["cancelled"]


@contextmanager
def only_place(model: Transformer, tokenizer: Tokenizer) -> Iterator[Engine]:
    """Yield an engine with one slot, and check at the end that the slot is free."""
    with Engine(model, tokenizer, max_active=1) as engine:
        yield engine
        assert len(engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=2, stop_ids=())).token_ids) == 2


def test_a_dropped_stream_is_cancelled(model: Transformer, tokenizer: Tokenizer):
    """The stream is dropped before its start or in the middle. A generator's `finally` would handle only the second."""
    with only_place(model, tokenizer) as engine:
        engine.stream(never_ending())
        for _ in engine.stream(never_ending()):
            break


def test_a_cancelled_task_cancels_its_request(model: Transformer, tokenizer: Tokenizer):
    """A disconnected client cancels its handler's task during an `await`."""

    async def hang_up(engine: Engine) -> None:
        paused = engine.stream(never_ending())  # uses the only slot, so the other request waits for an event
        task = asyncio.create_task(collect(engine.submit(never_ending())))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        paused.close()

    with only_place(model, tokenizer) as engine:
        asyncio.run(hang_up(engine))


def test_a_late_close_does_not_cancel_a_new_request_with_the_same_id(engine: Engine):
    """The stream of a finished request is dropped while a new request with the same id is running."""
    first = engine.stream(GenerationRequest(prompt=PROMPT, max_tokens=2, stop_ids=(), id="chat"))
    assert len(list(first)) == 2
    second = engine.stream(never_ending(id="chat"))
    next(second)
    del first
    assert all(event.finish_reason != "cancelled" for event in second)


def test_a_consumer_that_does_not_read_pauses_only_its_request(engine: Engine):
    """The event queue has 256 events. It must not grow, and the engine must not wait for it."""
    slow = engine.stream(never_ending())
    quick = engine.complete(never_ending())
    assert tuple(event.token_id for event in slow) == quick.token_ids


def test_a_consumer_that_never_reads_is_cancelled(model: Transformer, tokenizer: Tokenizer):
    """Paused requests use slots: enough clients that did not read once blocked a server permanently."""
    with Engine(model, tokenizer, max_active=2, read_timeout=0.3) as engine:
        silent = [engine.stream(never_ending()) for _ in range(2)]
        assert len(engine.complete(GenerationRequest(prompt=PROMPT, max_tokens=2, stop_ids=())).token_ids) == 2
        time.sleep(2)  # until the other request, whose event queue was full later, is also cancelled
        for stream in silent:
            events = list(stream)
            assert events[-1].finish_reason == "cancelled"
            assert len(events) == 257  # buffered events can still be read


def test_a_slow_consumer_is_not_cancelled(model: Transformer, tokenizer: Tokenizer):
    """Its event queue is full for longer than the timeout, but it reads events."""
    with Engine(model, tokenizer, read_timeout=1.0) as engine:
        stream = engine.stream(never_ending())
        while not stream._queue.full:  # type: ignore[attr-defined]
            time.sleep(0.05)
        for _ in range(6):
            time.sleep(0.25)
            next(stream)
        assert list(stream)[-1].finish_reason == "length"


def test_an_error_is_raised_to_its_consumer_only(model: Transformer, tokenizer: Tokenizer):
    """The model raises an error for one token, as if out of memory, and the other request continues."""
    request = GenerationRequest(prompt=PROMPT, max_tokens=30, stop_ids=(), seed=1)
    with Engine(model, tokenizer) as engine:
        expected = engine.complete(request).token_ids
    poison = next(i for i in range(500, 600) if i not in expected and i not in tokenizer.encode(PROMPT))

    def fail(module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
        if (arguments[0] == poison).any():
            raise RuntimeError("out of memory")

    hook = model.model.embed_tokens.register_forward_pre_hook(fail)
    try:
        with Engine(model, tokenizer) as engine:
            alive = engine.stream(request)
            first = next(alive)
            with pytest.raises(RuntimeError, match="out of memory"):
                engine.complete(GenerationRequest(prompt=(poison,)))
            assert tuple(event.token_id for event in (first, *alive)) == expected
    finally:
        hook.remove()


def test_a_full_queue_is_an_error(model: Transformer, tokenizer: Tokenizer):
    with (
        Engine(model, tokenizer, max_active=1, max_waiting=2) as engine,
        pytest.raises(ResourceError, match="2"),
    ):
        streams = [engine.stream(never_ending()) for _ in range(4)]
        pytest.fail(f"{len(streams)} requests were taken")


def test_duplicate_ids_are_errors(engine: Engine):
    """Events and cancellations identify a request by its id."""
    running = engine.stream(never_ending(id="a"))
    with pytest.raises(ConfigError, match="'a'"):
        engine.stream(never_ending(id="a"))
    running.close()  # type: ignore[attr-defined]


def test_close_cancels_all_requests(model: Transformer, tokenizer: Tokenizer):
    engine = Engine(model, tokenizer)
    events = engine.stream(never_ending())
    next(events)
    engine.close()
    assert list(events)[-1].finish_reason == "cancelled"
    with pytest.raises(ResourceError, match="closed"):
        engine.complete(GenerationRequest(prompt=PROMPT))


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": -1},
        {"prompt": ()},
        {"stop": ("",)},
        {"stop": "text"},
        {"logprobs": -1},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_invalid_requests_are_errors(options: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        GenerationRequest(**({"prompt": PROMPT} | options))  # type: ignore[arg-type]
