"""Benchmark of a model on this machine: measured speed and memory, compared with llama.cpp and with the prediction."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from groundup.core.console import Console, format_count
from groundup.core.environment import (
    MAX_OTHER_CORES,
    OtherLoad,
    cpu_name,
    library_versions,
    machine_facts,
    source_commit,
)
from groundup.core.errors import ConfigError
from groundup.core.markdown import Table
from groundup.core.types import InferenceDtype
from groundup.evaluation.speed.llama_cpp import INSTALL, LlamaCppSpeed, find_llama_cpp
from groundup.hub.loading import OpenedModel
from groundup.inference.engine import Engine
from groundup.inference.prediction import (
    BATCH_SIZE,
    DEPTH,
    PREFILL_TOKENS,
    Prediction,
    machine_rates,
    predict_formats,
    remember,
)
from groundup.inference.runner import make_pool, make_runner, runner_format, runner_weight_bytes
from groundup.inference.speed import (
    Samples,
    SpeedTest,
    cache_limit,
    run_rounds,
    speed_tests,
    warm_up,
)
from groundup.kernels.memory import Peak, free_bytes, memory_bytes
from groundup.model.flops import cache_bytes

_CACHE_SHARE = 0.5  # of the free memory, for the KV cache
_MAIN_FIGURES = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """Settings of a benchmark.

    Attributes:
        dtypes: Weight formats.
        threads: Number of CPU threads.
        prompt_tokens: Prompt lengths of the prefill tests.
        depths: Context lengths of the decode tests.
        batch_sizes: Batch sizes of the decode tests.
        output_tokens: Number of tokens that each request decodes.
        rounds: Number of rounds.
        gguf: GGUF files with which llama.cpp is measured.
        llama_cpp: See `find_llama_cpp`.
    """

    dtypes: tuple[InferenceDtype, ...]
    threads: int
    prompt_tokens: tuple[int, ...]
    depths: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    output_tokens: int
    rounds: int
    gguf: tuple[Path, ...] = ()
    llama_cpp: Path | None = None


@dataclass(slots=True)
class EngineMemory:
    """Memory of an engine in bytes.

    Attributes:
        weights: The weights that decode reads.
        cache_per_1k: The KV cache for 1,000 tokens.
    """

    weights: int
    cache_per_1k: int


@dataclass(slots=True)
class Benchmark:
    """Results of a benchmark.

    Attributes:
        figures: The figures by engine and test.
        memory: Memory of each engine of groundup.
        peak_bytes: Peak memory of the process, or None if it is unknown.
        other_cores: Average number of CPU cores that other processes used, or None if it is unknown.
        predictions: Pairs of a prediction and the measured figures, by engine.
    """

    figures: dict[str, dict[SpeedTest, dict[str, Samples]]] = field(default_factory=dict)
    memory: dict[str, EngineMemory] = field(default_factory=dict)
    peak_bytes: int | None = None
    other_cores: float | None = None
    predictions: dict[str, tuple[Prediction, dict[str, float]]] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether the figures are not valid, because other processes used the CPU."""
        return self.other_cores is not None and self.other_cores > MAX_OTHER_CORES

    def tables(self) -> Iterator[Table]:
        """Yield the columns and rows of the tables: speed, then memory, then predictions."""
        speed = [row for engine, tests in self.figures.items() for row in _speed_rows(engine, tests)]
        yield ("engine", "test", "tokens/s", "best", "spread", "with prefill", "first token"), speed
        size = {engine: (found.weights, found.cache_per_1k) for engine, found in self.memory.items()}
        memory = [(engine, *(format_count(each, "bytes") for each in sizes)) for engine, sizes in size.items()]
        yield ("engine", "weights", "KV cache per 1k tokens"), memory
        compared = [
            (engine, figure.replace("_", " "), *_compared(getattr(prediction, figure), value))
            for engine, (prediction, measured) in self.predictions.items()
            for figure, value in measured.items()
        ]
        yield ("engine", "figure", "predicted", "measured", "error"), compared

    def to_json(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        results = [
            {"engine": engine, "test": test.name, "batch_size": test.batch_size, "prompt_tokens": test.prompt_tokens}
            | {"output_tokens": test.output_tokens, "figure": figure, "unit": _unit(figure)}
            | {"median": samples.median, "best": samples.best(lower=figure == "first_token")}
            | {"spread": samples.spread, "rounds": samples.values}
            for engine, tests in self.figures.items()
            for test, figures in tests.items()
            for figure, samples in figures.items()
        ]
        memory = {
            engine: {"weights": found.weights, "cache_per_1k_tokens": found.cache_per_1k}
            for engine, found in self.memory.items()
        }
        predictions = {
            engine: {"prediction": prediction.to_json(), "measured": measured}
            for engine, (prediction, measured) in self.predictions.items()
        }
        load = {"other_load_cores": self.other_cores, "busy": self.busy, "peak_memory_bytes": self.peak_bytes}
        return {"results": results, "memory_bytes": memory, "predictions": predictions} | load


def environment(opened: OpenedModel, settings: BenchmarkSettings) -> dict[str, Any]:
    """Return machine, versions, commit, model and settings as JSON values, for bug reports."""
    machine = machine_facts() | {"cpu": cpu_name(), "memory_bytes": memory_bytes("cpu")}
    values = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    model = {"directory": str(opened.directory), "shape": opened.model.config.to_json()}
    return {
        "machine": machine,
        "versions": library_versions(),
        "commit": source_commit(),
        "model": model,
        "settings": {name: [str(each) for each in value] if name == "gguf" else value for name, value in values.items()}
        | {"llama_cpp": None if settings.llama_cpp is None else str(settings.llama_cpp)},
    }


def run_benchmark(opened: OpenedModel, settings: BenchmarkSettings, console: Console) -> Benchmark:
    """Measure speed and memory of a model.

    Args:
        opened: The model.
        settings: Settings.
        console: Console that shows progress, notes and warnings.

    Returns:
        The results. The predictions of earlier figures are compared with them and stored for later predictions.

    Raises:
        ConfigError: No test fits into the context of the model.
        ResourceError: A format is not supported on this machine, or llama.cpp fails.
    """
    torch.set_num_threads(settings.threads)
    tests = _possible_tests(opened, settings, console)
    found = Benchmark()
    peak = Peak(next(opened.model.parameters()).device.type)
    peak.reset()
    load = _Load()
    numbers = random.Random(0)
    rates = machine_rates()
    with ExitStack() as stack:
        sides: dict[str, Callable[[SpeedTest], dict[str, float]]] = {}
        for dtype in settings.dtypes:
            runner = make_runner(opened.model, dtype, pool=make_pool(cache_limit(opened.model.config, tests)))
            weights = runner_format(runner, opened.model)
            largest = max(test.batch_size for test in tests)
            engine = Engine(opened.model, opened.tokenizer, runner=runner, max_active=largest, max_waiting=largest)
            stack.enter_context(engine)
            name = f"groundup {weights}"
            per_1k = cache_bytes(opened.model.config, 1000, "float32" if weights == "float32" else "bfloat16")
            found.memory[name] = EngineMemory(runner_weight_bytes(runner, opened.model), per_1k)
            warm_up(engine, tests[-1])
            sides[name] = load.measured(lambda test, engine=engine: test.run(engine, numbers))  # type: ignore[misc]
        sides |= _llama_cpp(opened, settings, tests, stack, console)
        total = settings.rounds * len(sides) * sum(test.tokens for test in tests)
        with console.progress("measuring", total, "tokens") as bar:
            found.figures = run_rounds(sides, tests, settings.rounds, bar.advance)
    found.peak_bytes = peak.bytes if peak.bytes >= 0 else None
    found.other_cores = load.cores
    for prediction in predict_formats(opened.model.config, rates):
        name = f"groundup {prediction.format}"
        if measured := _predicted_figures(found.figures.get(name, {})):
            found.predictions[name] = (prediction, measured)
            if not found.busy:  # figures of a busy machine would spoil later predictions
                remember(rates, opened.directory.name, prediction, measured)
    return found


class _Load:
    """The average load by other processes while functions run."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._core_seconds = 0.0
        self._known = True

    @property
    def cores(self) -> float | None:
        return self._core_seconds / self._seconds if self._known and self._seconds else None

    def measured(self, run: Callable[[SpeedTest], dict[str, float]]) -> Callable[[SpeedTest], dict[str, float]]:
        def timed(test: SpeedTest) -> dict[str, float]:
            started, other = time.perf_counter(), OtherLoad()
            figures = run(test)
            seconds, cores = time.perf_counter() - started, other.cores
            self._seconds += seconds
            self._core_seconds += seconds * (cores or 0)
            self._known = self._known and cores is not None
            return figures

        return timed


def _possible_tests(opened: OpenedModel, settings: BenchmarkSettings, console: Console) -> list[SpeedTest]:
    """Return the tests that fit into the context of the model and into the memory, and print which ones do not."""
    config = opened.model.config
    wanted = speed_tests(settings.prompt_tokens, settings.depths, settings.batch_sizes, settings.output_tokens)
    free = free_bytes(next(opened.model.parameters()).device.type)
    limit = None if free is None else _CACHE_SHARE * free
    short = [test for test in wanted if test.sequence_tokens > config.context_length]
    large = [test for test in wanted if limit is not None and test not in short and cache_limit(config, [test]) > limit]
    for skipped, reason in (
        (short, f"the context of the model has {config.context_length:,} tokens"),
        (large, f"the KV cache would use more than half of the free memory ({format_count(free or 0, 'bytes')})"),
    ):
        if skipped:
            console.note(f"Skipped {'; '.join(test.name for test in skipped)}: {reason}.")
    tests = [test for test in wanted if test not in short and test not in large]
    if not tests:
        raise ConfigError(
            f"{opened.directory}: no test fits into the context of {config.context_length:,} tokens and the memory",
            fix="Reduce --prompt-tokens, --depth and --batch-size.",
        )
    return tests


def _llama_cpp(
    opened: OpenedModel, settings: BenchmarkSettings, tests: Sequence[SpeedTest], stack: ExitStack, console: Console
) -> dict[str, Callable[[SpeedTest], dict[str, float]]]:
    program = find_llama_cpp(settings.llama_cpp)
    if program is None or not settings.gguf:
        if program is None and settings.gguf:
            console.warn(f"llama.cpp is not installed. {INSTALL}")
        elif program is not None:
            console.note("To compare with llama.cpp, give a GGUF file of this model: --gguf FILE.")
        return {}
    sides: dict[str, Callable[[SpeedTest], dict[str, float]]] = {}
    for file in settings.gguf:
        if not file.is_file():
            raise ConfigError(f"--gguf {file}: no such file", fix="Write it with groundup export gguf.")
        peer = stack.enter_context(LlamaCppSpeed(program, file, settings.threads, tests, opened.tokenizer.vocab_size))
        sides[f"llama.cpp {file.stem}"] = peer.run
    return sides


def _predicted_figures(tests: Mapping[SpeedTest, Mapping[str, Samples]]) -> dict[str, float]:
    """Return the medians of the figures that `Prediction` has."""
    found: dict[str, float] = {}
    for test, figures in tests.items():
        if not test.output_tokens and test.prompt_tokens == PREFILL_TOKENS:
            found["prefill"] = figures["prefill"].median
        elif test.output_tokens and test.prompt_tokens == DEPTH and test.batch_size in (1, BATCH_SIZE):
            found["decode" if test.batch_size == 1 else "decode_batch_8"] = figures["decode"].median
    return found


def _speed_rows(engine: str, tests: Mapping[SpeedTest, Mapping[str, Samples]]) -> Iterator[Sequence[str]]:
    for test, figures in tests.items():
        main = next(figures[name] for name in _MAIN_FIGURES if name in figures)
        with_prefill, first = figures.get("with_prefill"), figures.get("first_token")
        yield (
            engine,
            test.name,
            f"{main.median:,.1f}",
            f"{main.best():,.1f}",
            f"{main.spread:.0%}",
            f"{with_prefill.median:,.1f}" if with_prefill else "",
            f"{1000 * first.median:,.0f} ms" if first else "",
        )


def _compared(predicted: float, measured: float) -> tuple[str, str, str]:
    return f"{predicted:,.1f}", f"{measured:,.1f}", f"{predicted / measured - 1:+.0%}"


def _unit(figure: str) -> str:
    return "s" if figure == "first_token" else "tokens/s"
