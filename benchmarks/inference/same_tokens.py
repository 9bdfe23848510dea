"""Check that 200 prompts get the same tokens in every condition, greedy and with a seed.

The reference is each request alone with an empty prefix cache on one thread. The conditions are: alone again with a
full prefix cache; random schedules with an empty and with a full cache; several sizes of prefill chunks; neighbors that
are cancelled; a KV cache that is too small for all requests, so that some are preempted; and two threads. `same_tokens`
is the share of the prompts whose tokens are the same in all conditions.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference.options import model_of, parser_of
from groundup.core.console import Console
from groundup.data.texts import read_texts
from groundup.hub.loading import OpenedModel, open_model
from groundup.inference import Engine, GenerationRequest, Sampling, make_runner
from groundup.inference.runner import NativeRunner, make_pool
from groundup.inference.speed import cache_limit, speed_tests
from groundup.kernels.weight_packing import WeightFormat

_LENGTHS = (4, 400)  # tokens of a prompt
_OUTPUT_TOKENS = 24
_CHUNKS = (16, 100, 256)
_CANCELLED_TOKENS = 5
_MAX_ACTIVE = 64
_MAX_DELAY_SECONDS = 0.5
Answers = list[tuple[int, ...]]


def main() -> None:
    """Generate all answers in all conditions and compare them."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--prompts", type=int, default=200, help="number of prompts [200]")
    parser.add_argument("--dtype", default="int8", choices=("int8", "int4", "bfloat16"), help="weight format [int8]")
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts and schedules [0]")
    options = parser.parse_args()
    opened = open_model(model_of(options), device="cpu")
    numbers = random.Random(options.seed)
    requests = make_requests(opened, options.texts, options.prompts, numbers)
    engines = Engines(opened, options.dtype)
    answers: dict[str, Answers] = {}
    total = 9 * len(requests)
    with Console().progress("generating", total, "answers") as bar:
        with engines.open() as engine:
            answers["alone"] = alone(engine, requests, bar.advance)
            answers["alone, full cache"] = alone(engine, requests, bar.advance)
            answers["schedule, full cache"] = scheduled(engine, requests, numbers, bar.advance)
        for chunk in _CHUNKS:
            with engines.open(chunk=chunk) as engine:
                answers[f"schedule, chunks of {chunk} tokens"] = scheduled(engine, requests, numbers, bar.advance)
        with engines.open() as engine:
            answers["cancelled neighbors"] = scheduled(engine, requests, numbers, bar.advance, cancels=True)
        with engines.open(sequences=2) as engine:
            answers["small KV cache"] = scheduled(engine, requests, numbers, bar.advance, num_clients=_MAX_ACTIVE)
        with engines.open(threads=2) as engine:
            answers["2 threads"] = scheduled(engine, requests, numbers, bar.advance)
    reference = answers.pop("alone")
    differ = {name: [i for i, ids in enumerate(found) if ids != reference[i]] for name, found in answers.items()}
    same = len(reference) - len({index for indices in differ.values() for index in indices})
    print(json.dumps({"same_tokens": same / len(reference), "prompts": len(reference), "differ": differ}))


def make_requests(
    opened: OpenedModel, texts: str | None, count: int, numbers: random.Random
) -> list[GenerationRequest]:
    """Return requests with prompts of mixed lengths, greedy and seeded in turns. Some prompts share their beginning."""
    ids = opened.tokenizer.encode("\n\n".join(read_texts(Path(texts)) if texts else _python_pages()))
    requests = []
    starts = [numbers.randrange(max(1, len(ids) - _LENGTHS[1])) for _ in range(max(1, count // 2))]
    for number in range(count):
        start, length = numbers.choice(starts), numbers.randint(*_LENGTHS)
        sampling = Sampling(temperature=0.8, top_p=0.95) if number % 2 else Sampling(temperature=0)
        prompt = tuple(opened.tokenizer.add_bos(ids[start : start + length]))
        tokens = numbers.randint(1, _OUTPUT_TOKENS)
        requests.append(
            GenerationRequest(prompt=prompt, sampling=sampling, max_tokens=tokens, seed=number, stop_ids=())
        )
    return requests


def _python_pages() -> Sequence[str]:
    from pydoc_data.topics import topics

    return [text for _, text in sorted(topics.items())]


class _ChunkedRunner(NativeRunner):
    """A runner with another size of prefill chunks."""

    chunk = 0

    def prefill_tokens(self, length: int, *, shared: bool) -> int:
        return self.chunk


class Engines:
    """Engines of one model, each with an empty prefix cache."""

    def __init__(self, opened: OpenedModel, dtype: WeightFormat) -> None:
        self._opened = opened
        self._dtype: WeightFormat = dtype

    @contextmanager
    def open(self, *, chunk: int | None = None, threads: int = 1, sequences: int = 64) -> Iterator[Engine]:
        """Open an engine.

        Args:
            chunk: Size of prefill chunks. Default: the engine's.
            threads: CPU threads.
            sequences: Number of sequences for which the KV cache has memory.
        """
        torch.set_num_threads(threads)
        opened = self._opened
        pool = make_pool(cache_limit(opened.model.config, speed_tests([sum(_LENGTHS)], [], [], 0)) * sequences // 2)
        runner: Any
        if chunk is None:
            runner = make_runner(opened.model, self._dtype, pool=pool)
        else:
            runner = _ChunkedRunner(opened.model, self._dtype, pool=pool)
            runner.chunk = chunk
        with Engine(opened.model, opened.tokenizer, runner=runner, max_active=_MAX_ACTIVE, max_waiting=1024) as engine:
            yield engine


def alone(engine: Engine, requests: Sequence[GenerationRequest], advance: Callable[[float], object]) -> Answers:
    """Run the requests one after the other."""
    answers = []
    for request in requests:
        answers.append(engine.complete(request).token_ids)
        advance(1)
    return answers


def scheduled(
    engine: Engine,
    requests: Sequence[GenerationRequest],
    numbers: random.Random,
    advance: Callable[[float], object],
    *,
    num_clients: int = 0,
    cancels: bool = False,
) -> Answers:
    """Run the requests concurrently, in random order and after random delays.

    If `cancels` is true, each request has a neighbor with the same prompt that is cancelled after a few tokens.
    """
    answers: Answers = [()] * len(requests)
    order = numbers.sample(range(len(requests)), len(requests))
    delays = {index: numbers.random() * _MAX_DELAY_SECONDS for index in order}
    waiting = iter(order)
    lock = threading.Lock()

    def consume() -> None:
        while True:
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            request = requests[index]
            time.sleep(delays[index] / 16)
            if cancels:
                neighbor = GenerationRequest(prompt=request.prompt, max_tokens=100, seed=index, stop_ids=())
                events = engine.stream(neighbor)
                for _ in range(index % _CANCELLED_TOKENS):
                    next(events)
                engine.cancel(neighbor.id)
            answers[index] = engine.complete(request).token_ids
            with lock:
                advance(1)

    workers = [threading.Thread(target=consume) for _ in range(num_clients or numbers.choice((8, 16, 24)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers


if __name__ == "__main__":
    main()
