"""`groundup bench`: measure the inference speed, memory and quantization quality of a model on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count
from groundup.core.types import InferenceDtype

if TYPE_CHECKING:
    from groundup.core.markdown import Table
    from groundup.evaluation.speed.report import Benchmark, BenchmarkSettings
    from groundup.hub.loading import OpenedModel

EXAMPLE = "groundup bench runs/quickstart --dtype int8 --dtype bfloat16"


class BenchConfig(Config):
    """Settings of `groundup bench`."""

    model: Path = setting(help="Model directory, GGUF file, or run (its newest language model)", positional=True)
    dtype: tuple[InferenceDtype, ...] = setting(("auto",), help="Weight formats", flag=True)
    threads: int | None = setting(None, help="Number of CPU threads; default: one per core", flag=True, gt=0)
    prompt_tokens: tuple[int, ...] = setting((128, 512, 2048), help="Prompt lengths", flag=True)
    depth: tuple[int, ...] = setting((512,), help="Context lengths of decode", flag=True)
    batch_size: tuple[int, ...] = setting((1, 2, 4, 8, 16, 32), help="Numbers of concurrent requests", flag=True)
    output_tokens: int = setting(64, help="Tokens that a request decodes", flag=True, gt=0)
    rounds: int = setting(3, help="Number of rounds", flag=True, gt=0)
    gguf: tuple[Path, ...] = setting((), help="Same model for llama.cpp", flag=True)
    llama_cpp: Path | None = setting(
        None, help="The program llama-bench, or a Python that has xllamacpp; default: the installed one", flag=True
    )
    quality: bool = setting(False, help="Measure quality instead of speed", flag=True)
    texts: Path | None = setting(
        None, help="Texts for --quality; default: validation set of the run, or Python's language reference", flag=True
    )
    quality_tokens: int = setting(8192, help="Maximum tokens of --quality", flag=True, gt=0)
    base: Path | None = setting(None, help="Base model of an adapter, if it was moved", flag=True)
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available", flag=True)


def run(
    config: BenchConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] | None = None,
    json_lines: bool = False,
) -> dict[str, Any]:
    """Measure a model, and print tables or one JSON object.

    Args:
        config: Settings of the command.
        console: Console for progress and warnings.
        on_text: Function that receives the output.
        json_lines: Whether to print one JSON object, for bug reports, instead of tables.

    Returns:
        The results, the machine, the versions and the settings, as JSON values.

    Raises:
        DataError: The model or a text does not exist.
        ConfigError: No test fits into the context of the model.
        ResourceError: A format is not supported on this machine, or llama.cpp fails.
    """
    import torch

    from groundup.core.markdown import markdown_table
    from groundup.evaluation.quantization import QUALITY_COLUMNS, measure_quality, quality_row
    from groundup.evaluation.speed.report import environment, run_benchmark
    from groundup.hub.loading import open_model

    console = console or Console()
    on_text = on_text or (lambda _: None)
    opened = open_model(config.model, device=config.device, base=config.base, as_stored=not config.quality)
    settings = _settings(config, opened)
    facts = environment(opened, settings)
    if config.quality:
        torch.set_num_threads(settings.threads)
        found, source = measure_quality(opened, config.dtype, config.texts, config.quality_tokens, console)
        facts |= {"quality": [each.to_json() for each in found], "text": source}
        tables: list[Table] = [(QUALITY_COLUMNS, [quality_row(each) for each in found])]
    else:
        benchmark = run_benchmark(opened, settings, console)
        facts |= benchmark.to_json()
        tables = list(benchmark.tables())
        _note(benchmark, opened, console)
    if json_lines:
        on_text(json.dumps(facts, default=str) + "\n")
    else:
        on_text("\n".join(text for columns, rows in tables if (text := markdown_table(columns, rows))))
    return facts


def _settings(config: BenchConfig, opened: OpenedModel) -> BenchmarkSettings:
    import torch

    from groundup.evaluation.speed.report import BenchmarkSettings
    from groundup.hub.weight_files import is_gguf

    return BenchmarkSettings(
        dtypes=config.dtype,
        threads=config.threads or torch.get_num_threads(),
        prompt_tokens=config.prompt_tokens,
        depths=config.depth,
        batch_sizes=config.batch_size,
        output_tokens=config.output_tokens,
        rounds=config.rounds,
        gguf=config.gguf or ((opened.directory,) if is_gguf(opened.directory) else ()),
        llama_cpp=config.llama_cpp,
    )


def _note(benchmark: Benchmark, opened: OpenedModel, console: Console) -> None:
    if benchmark.peak_bytes is not None:
        console.note(f"{opened.directory}: peak memory of the process {format_count(benchmark.peak_bytes, 'bytes')}.")
    if benchmark.busy:
        console.warn(
            f"Other processes used {benchmark.other_cores:.1f} CPU cores during the measurement, so the figures are "
            "not valid. Stop these processes and repeat the benchmark. Later predictions ignore these figures."
        )
