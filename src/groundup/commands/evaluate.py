"""`groundup evaluate`: score a model on held-out text (bits per byte), on a table of examples, or on tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.commands._result import report_directory, result_facts, show_result
from groundup.core.artifact import Artifact, Work, begin, read, read_intact
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.types import MetricName
from groundup.data import ConversationSettings, table_identity

if TYPE_CHECKING:
    from groundup.evaluation.report import EvaluationResult

EXAMPLE = "groundup evaluate runs/notes --data another.txt"


class EvaluateConfig(Config):
    """Settings of `groundup evaluate`."""

    model: Path = setting(help="model directory, or a run (its newest language model)", positional=True)
    out: Path | None = setting(None, help="directory for the report; default: a directory next to the model", flag=True)
    data: Path | None = setting(None, help="file or folder of texts or examples to score", flag=True)
    measure: Literal["text", "answers", "labels", "choices"] | None = setting(
        None, help="what to score; default: detected from the type of the model and the columns of DATA", flag=True
    )
    task: tuple[Path, ...] = setting((), help="task to score: a table of items, or a TOML file", flag=True)
    lm_eval: tuple[str, ...] = setting((), help="task of lm-evaluation-harness: name or YAML file", flag=True)
    metric: MetricName | None = setting(None, help="metric of generated answers; default: chosen from the data")
    max_examples: int = setting(200, help="maximum number of generated answers", gt=0)
    corpus: Path | None = setting(None, help="corpus with held-out text; default: the corpus of the run", flag=True)
    tokens: Path | None = setting(None, help="token shards with held-out text, instead of a corpus", flag=True)
    max_bytes: int = setting(8_000_000, help="approximate maximum size of the held-out text, in bytes", gt=0)
    compressors: bool = setting(True, help="compare with compressors (xz, PPMd) that are given the training text")
    max_compressor_bytes: int = setting(64_000_000, help="maximum bytes of training text for the compressors", gt=0)
    samples: int = setting(3, help="number of texts to generate", flag=True, ge=0)
    batch_size: int = setting(16, help="number of windows per batch", gt=0)
    seed: int = setting(0, help="seed of the generated samples and of the bootstrap intervals", flag=True, ge=0)
    text: str | None = setting(None, help='name of the text column, or a template such as "{title}: {body}"')
    label: str | None = setting(None, help="name of the label column")
    group: tuple[str, ...] | None = setting(None, help="columns that divide choices into groups; default: detected")
    separator: str | None = setting(None, help='separator between several labels in a cell, such as ";"')
    device: str | None = setting(None, help="device, such as cpu or cuda; default: a GPU if available", flag=True)
    dtype: Literal["float32", "bfloat16"] | None = setting(
        None, help="data type to compute in; default: bfloat16 if it is faster and barely changes the score"
    )
    columns: ConversationSettings = setting(ConversationSettings(), help="columns of conversations in a table")


def run(config: EvaluateConfig, *, console: Console | None = None) -> Artifact:
    """Evaluate a model, and write `report.json` and `report.md`.

    Raises:
        DataError: the model or the text does not exist.
        ConfigError: the settings do not determine which text or examples to score.
    """
    from groundup.data.texts import require_data
    from groundup.evaluation.example_evaluation import detect_evaluation

    console = console or Console()
    if config.task or config.lm_eval:
        return _on_tasks(config, console)
    require_data(config.data)
    measure = config.measure or detect_evaluation(config.model, config.data, config.label, config.columns)
    return _on_text(config, console) if measure == "text" else _on_examples(config, measure, console)


def _on_text(config: EvaluateConfig, console: Console) -> Artifact:
    from groundup.data.texts import scored_texts, split_texts, texts_identity
    from groundup.evaluation.text_evaluation import TextEvaluationOptions, evaluate_text, require_corpus
    from groundup.hub.resolve import model_identity, resolve_model, run_text

    directory = resolve_model(config.model)
    corpus = config.corpus or config.tokens or run_text(config.model)
    inputs = {"model": model_identity(directory)}
    if corpus is not None:
        inputs["text"] = read_intact(corpus).digest
    if config.data is not None:
        texts = scored_texts(config.data, config.text, console)
        inputs["data"] = texts_identity(config.data)
    else:
        texts = split_texts(require_corpus(config.model, corpus), "validation", config.max_bytes)
    settings = config.model_dump(include={"max_bytes", "compressors", "max_compressor_bytes", "samples", "seed"})
    settings |= config.model_dump(include={"text", "dtype"}, exclude_none=True)
    work = begin(config.out or _default_out(config, directory), "evaluate", settings, inputs, console=console)
    if work.state == "done":
        return show_result(console, work.directory, read(work.directory))
    shared = config.model_dump(include={"samples", "batch_size", "seed", "device", "dtype"})
    options = TextEvaluationOptions(config.max_compressor_bytes if config.compressors else 0, **shared)
    source = str(config.data or "held-out text")
    report = evaluate_text(directory, list(texts), source, corpus, options, console)
    columns = ("model", "bits per byte", "better")
    table = result_facts(report.summary(), f"Bits per byte of {source}", columns, report.rows())
    return _finish(work, report, table | report.facts(), console)


def _on_examples(
    config: EvaluateConfig, measure: Literal["answers", "labels", "choices"], console: Console
) -> Artifact:
    from groundup.evaluation.example_evaluation import COLUMNS, ExampleOptions, evaluate_examples, require_table
    from groundup.hub.resolve import model_identity, resolve_classifier, resolve_model

    data = require_table(config.model, config.data, measure)
    directory = resolve_classifier(config.model) if measure == "labels" else resolve_model(config.model)
    chosen = {"seed", "text", "label", "separator", "columns"} | ({"max_examples"} if measure == "answers" else set())
    settings = config.model_dump(mode="json", include=chosen) | {"measure": measure}
    settings |= config.model_dump(include={"dtype", "group", "metric"}, exclude_none=True)
    inputs = {"model": model_identity(directory), "data": table_identity(data)}
    work = begin(config.out or _default_out(config, directory), "evaluate", settings, inputs, console=console)
    if work.state == "done":
        return show_result(console, work.directory, read(work.directory))
    shared = {"text", "label", "separator", "metric", "max_examples", "dtype", "seed", "device"}
    options = ExampleOptions(groups=config.group, columns=config.columns, **config.model_dump(include=shared))
    found = evaluate_examples(directory, data, measure, options, console)
    table = result_facts(found.sentence, "On these examples", COLUMNS, found.rows)
    return _finish(work, found, table | dict(found.facts), console)


def _on_tasks(config: EvaluateConfig, console: Console) -> Artifact:
    from groundup.evaluation.harness import evaluate_tasks, read_tasks
    from groundup.evaluation.tasks import COLUMNS
    from groundup.hub.resolve import model_identity, resolve_any

    directory, (tasks, digests) = resolve_any(config.model), read_tasks(config.task, config.lm_eval, config.data)
    inputs = {"model": model_identity(directory), **digests}
    settings = config.model_dump(mode="json", include={"seed", "dtype", "lm_eval"})
    work = begin(config.out or _default_out(config, directory), "evaluate", settings, inputs, console=console)
    if work.state == "done":
        return show_result(console, work.directory, read(work.directory))
    shared = config.model_dump(include={"seed", "dtype", "device"})
    found = evaluate_tasks(directory, tasks, config.lm_eval, console, **shared)
    return _finish(work, found, result_facts(found.sentence, "Tasks", COLUMNS, found.rows) | found.facts, console)


def _finish(work: Work, found: EvaluationResult, facts: dict[str, Any], console: Console) -> Artifact:
    from groundup.evaluation.report import write_evaluation

    return show_result(console, work.directory, work.finish(facts, write_evaluation(work.directory, found)))


def _default_out(config: EvaluateConfig, directory: Path) -> Path:
    data = [config.data] if config.data else [*config.task, *map(Path, config.lm_eval)]
    return report_directory(config.model, directory, data)
