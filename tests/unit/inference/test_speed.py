"""Speed tests run through the engine and measure its throughput."""

from __future__ import annotations

import random
import time

import pytest

from groundup.inference import Engine
from groundup.inference.runner import TorchRunner
from groundup.inference.speed import Samples, SpeedTest, run_rounds, speed_tests
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

STEP = 0.01


class SlowRunner(TorchRunner):
    """A runner that cannot be faster than one pass in `STEP` seconds. It counts the tokens of each pass."""

    def __init__(self, model: Transformer) -> None:
        super().__init__(model)
        self.passes: list[int] = []

    def forward(self, steps):  # type: ignore[no-untyped-def]
        self.passes.append(sum(len(step.ids) - step.cache.length for step in steps))
        time.sleep(STEP)
        return super().forward(steps)


def test_the_names_are_those_of_llama_bench() -> None:
    names = [test.name for test in speed_tests([512], [0, 64], [1, 8], 32)]
    assert names == ["pp512", "tg32 @ 0", "tg32 @ 0, batch 8", "tg32 @ 64", "tg32 @ 64, batch 8"]


def test_figures_are_those_of_a_runner_with_a_known_speed(model: Transformer, tokenizer: Tokenizer) -> None:
    runner = SlowRunner(model)
    with Engine(model, tokenizer, runner=runner, max_active=4) as engine:
        found = SpeedTest(1, 40).run(engine, random.Random(0))
        assert runner.passes == [40]
        assert 0 < found["prefill"] < 40 / STEP
        assert found["first_token"] == pytest.approx(40 / found["prefill"])
        found = SpeedTest(4, 40, 12).run(engine, random.Random(0))
        assert runner.passes.count(4) >= 12  # all 4 requests decode in each pass
        assert 0 < found["with_prefill"] < found["decode"] < 4 / STEP
        assert not engine.busy


def test_rounds_alternate_and_keep_every_sample() -> None:
    calls: list[str] = []

    def side(name: str) -> dict[str, float]:
        calls.append(name)
        return {"decode": float(len(calls))}

    test = SpeedTest(1, 8, 4)
    advanced: list[float] = []
    sides = {name: lambda _, name=name: side(name) for name in "ab"}
    found = run_rounds(sides, [test], 3, advanced.append)  # type: ignore[arg-type]
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert found["a"][test]["decode"].values == [1.0, 4.0, 5.0]
    assert advanced == [12] * 6
    samples = Samples([4.0, 1.0, 2.0])
    assert (samples.median, samples.best(), samples.best(lower=True), samples.spread) == (2.0, 4.0, 1.0, 1.5)
