"""Clients share the engine equally, long prompts do not stall others, and requests have a timeout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from groundup.inference import Engine, GenerationRequest, Sampling, TokenEvent
from groundup.inference.fairness import ClientShares, FairQueue
from groundup.inference.worker import QueueFullError, RequestState, RequestTimeoutError, Worker
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0)


def request(
    name: str, client: str, tokens: int = 12, prompt: int = 4, timeout: float | None = None
) -> GenerationRequest:
    options = {"sampling": GREEDY, "max_tokens": tokens, "stop_ids": (), "timeout": timeout}
    return GenerationRequest(prompt=(10, 11, 12), client=(client,), id=name, **options)  # type: ignore[arg-type]


class Recorder:
    """Records which requests get tokens, and the order in which requests end."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.ended: list[str] = []

    def on_token(self, state: RequestState, now: float) -> None:
        self.tokens.append(state.request.id)

    def on_end(self, state: RequestState, now: float, result: TokenEvent | Exception) -> None:
        self.ended.append(state.request.id)


@contextmanager
def recorded(model: Transformer, tokenizer: Tokenizer, max_active: int) -> Iterator[tuple[Engine, Recorder]]:
    recorder = Recorder()
    worker = Worker(max_active, 64, observer=recorder)
    with Engine(model, tokenizer, worker=worker) as engine:
        yield engine, recorder


def test_many_requests_do_not_starve_another_client(model: Transformer, tokenizer: Tokenizer) -> None:
    """In a first-in-first-out queue, the single request would be the last one."""
    with recorded(model, tokenizer, max_active=2) as (engine, recorder):
        many = [engine.stream(request(f"many-{i}", "a", tokens=30)) for i in range(20)]
        next(many[0])
        single = engine.stream(request("single", "b"))
        assert len(list(single)) == 12
        for stream in many:
            list(stream)
    assert recorder.ended.index("single") <= 4


def test_a_newcomer_need_not_wait_for_a_slot(model: Transformer, tokenizer: Tokenizer) -> None:
    """All slots are used by requests that would end later, and the newcomer gets one of the additional slots."""
    with recorded(model, tokenizer, max_active=4) as (engine, recorder):
        many = [engine.stream(request(f"many-{i}", "a", tokens=400)) for i in range(8)]
        next(many[3])
        assert len(list(engine.stream(request("single", "b")))) == 12
        assert recorder.ended == ["single"]
        for stream in many:
            stream.close()


def test_the_queue_counts_tokens_by_address_and_by_user() -> None:
    """An address with many users gets as much as an address with one user."""
    shares, queue = ClientShares(), FairQueue[tuple[str, ...]]()
    clients = [("proxy", f"user-{number}") for number in range(3)] + [("laptop",)]
    for client in clients * 6:
        path = shares.join(client)
        queue.put(client, path)
    paths = {client: shares.join(client) for client in clients}
    order = []
    for _ in range(12):
        client = queue.take()
        assert client is not None
        order.append(client)
        for share in paths[client]:
            share.tokens += 10
    assert order.count(("laptop",)) == 6
    assert {order.count(client) for client in clients[:3]} == {2}


def test_a_client_cannot_save_up_tokens() -> None:
    shares = ClientShares()
    (busy,) = shares.join(("busy",))
    busy.tokens = 1000.0
    (new,) = shares.join(("new",))
    assert new.tokens == 1000.0
    shares.leave((new,))
    shares.leave((busy,))
    assert shares.join(("busy",))[0].tokens == 0.0, "an idle server forgets all counters"


def test_forged_names_do_not_fill_the_memory() -> None:
    shares = ClientShares()
    shares.join(("honest",))
    for number in range(5000):
        shares.leave(shares.join(("attacker", str(number))))
    assert len(shares._shares) < 1100


@pytest.fixture
def long_model(tiny_model: Callable[..., Transformer], tokenizer: Tokenizer) -> Transformer:
    return tiny_model(tokenizer.vocab_size, context_length=8192)


def test_a_long_prompt_does_not_stall_others(long_model: Transformer, tokenizer: Tokenizer) -> None:
    """A running request gets a token per chunk of the long prompt, and a short prompt does not wait for a long one."""
    with recorded(long_model, tokenizer, max_active=4) as (engine, recorder):
        running = engine.stream(request("running", "a", tokens=200))
        next(running)
        ids = tuple(tokenizer.bos_id for _ in range(4000))
        long = engine.stream(GenerationRequest(prompt=ids, max_tokens=1, id="long", client=("a",)))
        short = engine.stream(request("short", "a", tokens=1))
        list(short)
        list(long)
        order = list(recorder.tokens)
        running.close()
    assert order.index("short") < order.index("long")
    during = order[order.index("short") : order.index("long")].count("running")
    assert during >= 4000 // 256 - 4, "the long prompt has 16 chunks"


def test_a_timeout_counts_the_time_in_the_queue(long_model: Transformer, tokenizer: Tokenizer) -> None:
    with Engine(long_model, tokenizer, max_active=1) as engine:
        running = engine.stream(request("running", "a", tokens=8000))
        next(running)
        begun = time.monotonic()
        with pytest.raises(RequestTimeoutError, match=r"within 0\.3 s: it waited in the queue for 0\.[3-9]"):
            list(engine.stream(request("queued", "a", timeout=0.3)))
        assert time.monotonic() - begun < 5
        running.close()
        with pytest.raises(RequestTimeoutError, match=r"queue for 0\.0 s"):
            list(engine.stream(request("slow", "a", tokens=8000, timeout=0.3)))
        assert len(list(engine.stream(request("next", "a", timeout=30)))) == 12
        assert not engine.busy


def test_a_full_queue_estimates_when_to_retry(long_model: Transformer, tokenizer: Tokenizer) -> None:
    with Engine(long_model, tokenizer, max_active=1, max_waiting=4) as engine:
        streams = [engine.stream(request("running", "a", tokens=8000))]
        next(streams[0])
        streams += [engine.stream(request(f"a-{i}", "a")) for i in range(4)]
        with pytest.raises(QueueFullError, match="4 requests are waiting") as refused:
            engine.stream(request("a-5", "a"))
        assert refused.value.retry_seconds == 1
        streams.append(engine.stream(request("b", "b")))  # the additional place of a client without a waiting request
        with pytest.raises(QueueFullError):
            engine.stream(request("b-2", "b"))
        for stream in streams:
            stream.close()
