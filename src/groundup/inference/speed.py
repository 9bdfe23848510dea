"""Speed of an engine: prefill and decode throughput, and time to first token.

The requests pass through the engine, as requests to the server do, so the time includes sampling and scheduling.
Prompts are random tokens, so the prefix cache does not hold them. Output is greedy.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from groundup.inference.engine import Engine
from groundup.inference.request import GenerationRequest
from groundup.inference.runner import PREFILL_TOKENS
from groundup.inference.sampling import Sampling
from groundup.model import ModelConfig
from groundup.model.flops import cache_bytes

_GREEDY = Sampling(temperature=0)
_WARM_UP_TOKENS = 16
_WARM_UP_SEED = -1  # other prompts than in the tests, because the prefix cache keeps them
_IDLE_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class SpeedTest:
    """One measurement: prefill of prompts, then decode at the context that the prompts fill.

    Attributes:
        batch_size: Number of concurrent requests.
        prompt_tokens: Number of tokens of each prompt.
        output_tokens: Number of tokens that are decoded for each request. Zero measures the prefill only.
    """

    batch_size: int
    prompt_tokens: int
    output_tokens: int = 0

    @property
    def name(self) -> str:
        """Name in tables, as in llama-bench: pp512 is a prompt, tg64 @ 512 is decode at a context of 512 tokens."""
        if not self.output_tokens:
            return f"pp{self.prompt_tokens}"
        batch = f", batch {self.batch_size}" if self.batch_size > 1 else ""
        return f"tg{self.output_tokens} @ {self.prompt_tokens}{batch}"

    @property
    def sequence_tokens(self) -> int:
        """Number of tokens that each sequence needs at most.

        The first requests decode while the prompts of the last ones are processed. They get more tokens, so that none
        of them ends before the measurement does.
        """
        if not self.output_tokens:
            return self.prompt_tokens + 1
        return self.prompt_tokens + self.output_tokens + 1 + self.batch_size * -(-self.prompt_tokens // PREFILL_TOKENS)

    @property
    def tokens(self) -> int:
        """Number of tokens that the test processes."""
        return self.batch_size * (self.prompt_tokens + self.output_tokens)

    def run(self, engine: Engine, numbers: random.Random) -> dict[str, float]:
        """Run the test once.

        Args:
            engine: The engine. It must not run other requests, and must allow `batch_size` concurrent requests.
            numbers: Source of the random prompts.

        Returns:
            For prefill: `prefill` in tokens/s and `first_token` in seconds. For decode: `decode` in tokens/s of all
            requests together while all of them decode, and `with_prefill` in output tokens/s of prefill and decode.
        """
        prompts = [_random_prompt(engine, self.prompt_tokens, numbers) for _ in range(self.batch_size)]
        prefill = _seconds_to_first_tokens(engine, prompts)
        if not self.output_tokens:
            return {"prefill": self.batch_size * self.prompt_tokens / prefill, "first_token": prefill}
        # A prefix cache now holds the prompts. Otherwise they are processed again, and the time is not counted.
        requests = [_request(prompt, self.sequence_tokens - self.prompt_tokens) for prompt in prompts]
        streams = list(map(engine.stream, requests))
        for stream in streams:
            next(stream)
        started = time.perf_counter()
        for _ in range(self.output_tokens):
            for stream in streams:
                next(stream)
        decode = time.perf_counter() - started
        for request in requests:
            engine.cancel(request.id)
        _wait_until_idle(engine)
        outputs = self.batch_size * self.output_tokens
        return {"decode": outputs / decode, "with_prefill": outputs / (prefill + decode)}


@dataclass(slots=True)
class Samples:
    """The results of one figure in several rounds.

    Attributes:
        values: The result of each round.
    """

    values: list[float]

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return median(self.values)

    @property
    def spread(self) -> float:
        """Difference between the largest and the smallest value, relative to the median."""
        return (max(self.values) - min(self.values)) / self.median

    def best(self, *, lower: bool = False) -> float:
        """Return the largest value, or the smallest one if lower values are better."""
        return min(self.values) if lower else max(self.values)


def speed_tests(
    prompt_tokens: Sequence[int], depths: Sequence[int], batch_sizes: Sequence[int], output_tokens: int
) -> list[SpeedTest]:
    """Return the tests of a benchmark: prefill of each length, then decode at each context and batch size.

    Args:
        prompt_tokens: Prompt lengths of the prefill tests.
        depths: Context lengths of the decode tests.
        batch_sizes: Batch sizes of the decode tests.
        output_tokens: Number of tokens that each request decodes.
    """
    prefill = [SpeedTest(1, length) for length in prompt_tokens]
    return prefill + [SpeedTest(size, depth, output_tokens) for depth in depths for size in batch_sizes]


def cache_limit(config: ModelConfig, tests: Sequence[SpeedTest]) -> int:
    """Return a limit of the KV cache, in bytes, that suffices for each of the tests.

    Args:
        config: Config of the model.
        tests: Tests that an engine will run.
    """
    # Closed requests are cancelled after the next step, so the blocks of two requests can be in use.
    return 2 * max(cache_bytes(config, each.batch_size * each.sequence_tokens, "bfloat16") for each in tests)


def warm_up(engine: Engine, test: SpeedTest) -> None:
    """Run a short version of a test, so that later ones do not include the first use of memory and code."""
    short = SpeedTest(1, min(test.prompt_tokens, PREFILL_TOKENS), min(test.output_tokens, _WARM_UP_TOKENS))
    short.run(engine, random.Random(_WARM_UP_SEED))


def run_rounds(
    sides: Mapping[str, Callable[[SpeedTest], dict[str, float]]],
    tests: Sequence[SpeedTest],
    rounds: int,
    advance: Callable[[float], object] = lambda _: None,
) -> dict[str, dict[SpeedTest, dict[str, Samples]]]:
    """Run tests on several engines in turns, so that other load on the machine affects all of them.

    Args:
        sides: Maps the name of each engine to a function that runs one test on it. A function that returns no figures
            cannot run the test.
        tests: Tests.
        rounds: Number of rounds. The order of the engines is reversed in every second round.
        advance: Callback for progress, called with the number of tokens of each test.

    Returns:
        The figures by engine and test.
    """
    found: dict[str, dict[SpeedTest, dict[str, Samples]]] = {name: {} for name in sides}
    for number in range(rounds):
        for test in tests:
            for name in sorted(sides, key=list(sides).index, reverse=number % 2 == 1):
                for figure, value in sides[name](test).items():
                    found[name].setdefault(test, {}).setdefault(figure, Samples([])).values.append(value)
                advance(test.tokens)
    return found


def _random_prompt(engine: Engine, length: int, numbers: random.Random) -> tuple[int, ...]:
    special = engine.tokenizer.special_ids
    prompt: list[int] = []
    while len(prompt) < length:
        token = numbers.randrange(engine.vocab_size)
        if token not in special:
            prompt.append(token)
    return tuple(prompt)


def _request(prompt: tuple[int, ...], max_tokens: int) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, sampling=_GREEDY, max_tokens=max_tokens, stop_ids=())


def _seconds_to_first_tokens(engine: Engine, prompts: Sequence[tuple[int, ...]]) -> float:
    """Return the seconds until all prompts, which are submitted together, have been processed."""
    started = time.perf_counter()
    streams = [engine.stream(_request(prompt, 1)) for prompt in prompts]
    for stream in streams:
        next(stream)
    seconds = time.perf_counter() - started
    _wait_until_idle(engine)
    return seconds


def _wait_until_idle(engine: Engine) -> None:
    while engine.busy:
        time.sleep(_IDLE_SECONDS)
