"""`groundup compare`: compare a fine-tuned model with its base model on the fine-tuning task and on general text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from groundup.commands._result import result_facts, show_result
from groundup.core.artifact import Artifact, begin, read
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.types import MetricName
from groundup.data import ConversationSettings, ExampleSources, table_identity

if TYPE_CHECKING:
    from groundup.evaluation.comparisons.examples import ComparisonReport
    from groundup.kernels import ComputeDtype

_PATHS = {"base", "fine_tuned", "data", "train", "general", "choices", "task", "index"}

EXAMPLE = "groundup compare runs/notes/base runs/notes/chat --data questions.csv"


class CompareConfig(Config):
    """Settings of `groundup compare`."""

    base: Path = setting(help="base model: a model directory or a run", positional=True)
    fine_tuned: Path = setting(help="fine-tuned language model or classifier", positional=True)
    out: Path | None = setting(None, help="directory for the report; default: next to FINE_TUNED", flag=True)
    data: ExampleSources = setting([], help="table of held-out examples, or the table used for fine-tuning", flag=True)
    train: ExampleSources = setting([], help="training examples for the base model's few-shot prompts", flag=True)
    metric: MetricName | None = setting(None, help="metric of answers; default: chosen from the data", flag=True)
    refusal: str = setting("", help="text with which an answer begins if it is a refusal", flag=True)
    max_examples: int = setting(200, help="maximum number of test examples", flag=True, ge=1)
    max_tokens: int | None = setting(None, help="maximum tokens per answer; default: derived from the data", gt=0)
    general: Path | None = setting(None, help="general text to measure forgetting: file, folder or corpus", flag=True)
    max_general_bytes: int = setting(60_000, help="approximate maximum size of the general text, in bytes", gt=0)
    task: tuple[Path, ...] = setting((), help="task to score: a table of items, or a TOML file", flag=True)
    index: Path | None = setting(None, help="index to which the models answer the questions in --data", flag=True)
    choices: Path | None = setting(None, help="table of multiple-choice questions", flag=True)
    text: str | None = setting(None, help='name of the text column of labeled data, or a template such as "{title}"')
    label: str | None = setting(None, help="name of the label column of labeled data")
    separator: str | None = setting(None, help='separator between several labels in a cell, such as ";"')
    columns: ConversationSettings = setting(ConversationSettings(), help="columns of conversations in a table")
    seed: int = setting(0, help="seed of the bootstrap intervals", flag=True, ge=0)
    device: str | None = setting(None, help="device, such as cpu or cuda; default: a GPU if available")
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="dtype to compute in; default: the faster one")


def run(config: CompareConfig, *, console: Console | None = None) -> Artifact:
    """Compare two models, and write `compare.json` and `compare.md`.

    Raises:
        DataError: a model does not exist, or no example can be scored.
        ConfigError: the settings do not give any data to compare on.
    """
    from groundup.data.texts import general_text_identity
    from groundup.evaluation.comparisons.examples import COLUMNS, write_comparison
    from groundup.evaluation.tasks import read_task, tasks_identity
    from groundup.hub.resolve import is_classifier, model_identity, resolve_any, run_text
    from groundup.kernels.machine import inference_dtype

    console = console or Console()
    if not (config.data or config.general or config.choices or config.task):
        raise ConfigError(
            f"{config.base} and {config.fine_tuned}: no data to compare on",
            fix="Give examples, general text or a task: --data FILE.csv, --general FOLDER, --task FILE.",
        )
    labels = is_classifier(config.fine_tuned)
    base, fine_tuned = resolve_any(config.base), resolve_any(config.fine_tuned)
    inputs = {"base": model_identity(base), "fine_tuned": model_identity(fine_tuned)}
    inputs |= {key: table_identity(data) for key, data in (("data", config.data), ("train", config.train)) if data}
    inputs |= {"choices": table_identity(config.choices)} if config.choices else {}
    inputs |= {"index": read(config.index).digest} if config.index else {}
    inputs |= {"tasks": tasks_identity([read_task(path) for path in config.task])} if config.task else {}
    general = config.general or run_text(config.base) or run_text(base)
    if general is not None:
        inputs["general"] = general_text_identity(general)
    keys = config.model_dump(mode="json", exclude=_PATHS | {"out", "device"})
    parent = fine_tuned.parent if fine_tuned == config.fine_tuned else config.fine_tuned
    out = config.out or parent / f"compare-{fine_tuned.name}"
    work = begin(out, "compare", keys, inputs, console=console)
    if work.state == "done":
        return show_result(console, work.directory, read(work.directory))
    dtype = config.dtype or inference_dtype(config.device)
    found = (_classifiers if labels else _language_models)(config, base, fine_tuned, general, dtype, console)
    files = write_comparison(work.directory, found, f"{base.name} before, {fine_tuned.name} after")
    for note in found.notes:
        console.note(note)
    if dtype == "bfloat16" and config.dtype is None:
        console.note("Computed in bfloat16, which is faster here. For full precision: --set dtype=float32.")
    facts = result_facts(found.sentence, "Before and after (95 % intervals)", COLUMNS, found.rows())
    made = work.finish(facts | found.to_json() | {"dtype": dtype}, files)
    return show_result(console, work.directory, made)


def _language_models(
    config: CompareConfig, base: Path, fine_tuned: Path, general: Path | None, dtype: ComputeDtype, console: Console
) -> ComparisonReport:
    from groundup.data.held_out import fine_tuning_record, held_out_answers
    from groundup.evaluation.comparisons import language_models as by
    from groundup.evaluation.comparisons.examples import ComparisonReport
    from groundup.evaluation.comparisons.readers import compare_readers, read_questions
    from groundup.evaluation.prompt_search import open_prompted
    from groundup.evaluation.tasks import TaskModel, read_task
    from groundup.retrieval import Index

    generation = config.dtype if config.dtype == "float32" else "auto"
    before, after = (
        open_prompted(each, base, config.device, dtype, console, generation=generation) for each in (base, fine_tuned)
    )
    found, seed = ComparisonReport([]), config.seed
    if config.index:
        asked = read_questions(config.data, config.max_examples, console)
        found = compare_readers(before, after, Index.open(config.index), asked, console, seed=seed)
    elif config.data:
        held = held_out_answers(config.data, config.train, config.columns, fine_tuned, console)
        options = by.AnswerOptions(config.metric, config.refusal, config.max_examples, config.max_tokens)
        is_fine_tuned = fine_tuning_record(fine_tuned) is not None
        found = by.compare_held_out(before, after, held, options, console, fine_tuned=is_fine_tuned, seed=seed)
    if config.task:
        old, new = (TaskModel(model, dtype, seed) for model in (before, after))
        found |= by.compare_tasks(old, new, [read_task(path) for path in config.task], console)
    found |= by.compare_text(before, after, general, config.max_general_bytes, console, seed=seed)
    return found | by.compare_choices(before, after, config.choices, config.max_examples, console, seed=seed)


def _classifiers(
    config: CompareConfig, base: Path, fine_tuned: Path, general: Path | None, dtype: ComputeDtype, console: Console
) -> ComparisonReport:
    from groundup.data.held_out import held_out_labels
    from groundup.data.labels.reading import LabelOptions
    from groundup.evaluation.comparisons.classifiers import compare_labels, open_compared
    from groundup.evaluation.comparisons.examples import ComparisonReport

    if not config.data:
        raise ConfigError(
            f"{config.fine_tuned}: no labeled examples for the classifier",
            fix="Give a labeled table: --data FILE.csv.",
        )
    generation = config.dtype if config.dtype == "float32" else "auto"
    before, after = open_compared(base, fine_tuned, config.device, dtype, console, generation=generation)
    options = LabelOptions(config.text, config.label, separator=config.separator)
    held = held_out_labels(config.data, config.train, options, after.labels, fine_tuned, console)
    found = compare_labels(before, after, held, console, max_examples=config.max_examples, seed=config.seed)
    note = "Forgetting of general text cannot be measured for a classifier."
    return found | ComparisonReport([], [note] if general is not None or config.choices else [])
