"""Declaration of an evaluation task: a small TOML file, or a table whose columns show what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from groundup.core.artifact import ARTIFACT, read_intact
from groundup.core.config import Config, load, read_toml, setting
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import MetricName
from groundup.data import read_table, table_identity
from groundup.data.choices import choice_columns, pair_columns
from groundup.data.columns import ConversationSettings, fill, find_columns
from groundup.data.tables import Table, evenly_spaced
from groundup.evaluation.metrics import choose_metric, label_names

TaskKind = Literal[
    "minimal_pairs", "multiple_choice", "classification", "qa", "summarization", "translation", "arithmetic",
    "instructions", "memorization",
]  # fmt: skip
_METRICS: Mapping[str, MetricName] = {
    "qa": "f1",
    "summarization": "rouge",
    "translation": "chrf",
    "arithmetic": "number",
}
_KINDS: Mapping[MetricName, TaskKind] = {metric: kind for kind, metric in _METRICS.items()}  # type: ignore[misc]
_NUM_SAMPLED = 400  # Maximum number of rows from which the kind of a table is detected.
CHECKS_COLUMN = "checks"


class EvaluationTask(Config):
    """An evaluation task. A file `NAME.toml` has these keys at its top level."""

    name: str = setting("", help="name of the task; default: name of the file")
    kind: TaskKind | None = setting(None, help="kind of the task; default: detected from the columns of the data")
    data: Path = setting(help="table of items, or texts for memorization; relative to the file of the task")
    prompt: str | None = setting(None, help='prompt: a column, or a template such as "Q: {question}\\nA:"')
    response: str | None = setting(None, help="reference answer: a column, or a template")
    label: str | None = setting(None, help="column with the label, for classification")
    metric: MetricName | None = setting(None, help="main metric of generated answers; default: from the kind")
    format: Literal["chat", "qa", "plain"] | None = setting(
        None, help="prompt format: the chat template, lines of Q and A, or the prompt as it is; default: chat, else qa"
    )
    stop: tuple[str, ...] = setting((), help="texts that end a generated answer; default: a line break, except in chat")
    group: tuple[str, ...] | None = setting(None, help="columns that divide the items into groups; default: detected")
    num_fewshot: int = setting(0, help="number of items, from the start of the data, that are shown as examples", ge=0)
    max_items: int | None = setting(
        None, help="maximum number of items, evenly spaced; default: all, or 200 for generated answers", gt=0
    )
    max_tokens: int | None = setting(None, help="maximum tokens per answer; default: from the reference answers", gt=0)
    prompt_tokens: int = setting(50, help="memorization: tokens of training text that are given as a prompt", gt=0)
    continuation_tokens: int = setting(50, help="memorization: tokens that must be reproduced exactly", gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluationTask:
        if self.metric is not None and self.kind not in (None, *_METRICS):
            raise PydanticCustomError("value_error", f"has metric, but a task of the kind {self.kind} has its own")
        if self.num_fewshot and self.kind in ("minimal_pairs", "instructions", "memorization"):
            raise PydanticCustomError("value_error", f"has num_fewshot, but {self.kind} has no reference answers")
        return self

    def main_metric(self) -> MetricName:
        """Return the main metric of a task with generated answers."""
        return self.metric or _METRICS.get(self.kind or "", "f1")


def read_task(path: Path) -> EvaluationTask:
    """Read a task from a TOML file, or derive it from the columns of a table.

    Args:
        path: TOML file or table.

    Returns:
        The task with its name and kind.

    Raises:
        ConfigError: the file is not valid.
        DataError: the data does not exist, or its columns do not match any kind of task.
    """
    if not path.exists():
        raise DataError(f"--task {path}: no such file", fix="Check the path.")
    if path.suffix.lower() != ".toml":
        return _completed(EvaluationTask(data=path, name=_stem(path)))
    task = load(EvaluationTask, read_toml(path), str(path))
    data = path.parent / task.data
    if not data.exists():
        raise DataError(f"{path}: data = {str(task.data)!r}: no such file", fix=f"Correct the path: {data}.")
    return _completed(task.model_copy(update={"data": data, "name": task.name or path.stem}))


def tasks_identity(tasks: Sequence[EvaluationTask]) -> str:
    """Return a digest that changes if a task or its data changes."""
    parts = []
    for task in tasks:
        corpus = (task.data / ARTIFACT).is_file()
        digest = read_intact(task.data).digest if corpus else table_identity(task.data)
        parts.append([task.model_dump(mode="json", exclude={"data"}), digest])
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _completed(task: EvaluationTask) -> EvaluationTask:
    if task.kind is not None:
        return task
    table = read_table(task.data)
    if pair_columns(table) is not None:
        return task.model_copy(update={"kind": "minimal_pairs"})
    if choice_columns(table) is not None:
        return task.model_copy(update={"kind": "multiple_choice"})
    if CHECKS_COLUMN in table.columns:
        return task.model_copy(update={"kind": "instructions"})
    if task.label is not None or (task.response is None and {"text", "label"} <= set(table.columns)):
        return task.model_copy(update={"kind": "classification"})
    return task.model_copy(update=_answers(task, table))


def _answers(task: EvaluationTask, table: Table) -> dict[str, Any]:
    try:
        # Detection by content would take any two columns of text for a prompt and its response.
        columns = find_columns(table, conversation_rules(task), by_content=False)
    except DataError:
        raise DataError(
            f"{table.name}: the columns {', '.join(table.columns[:12])} do not match any kind of task",
            rule="a task has the columns sentence_good and sentence_bad; choices and answer; prompt and checks; "
            "text and label; or question and answer",
            fix='Rename the columns, or write a file NAME.toml: kind = "qa", data = "FILE", prompt = "{COLUMN}", '
            'response = "{COLUMN}".',
        ) from None
    if columns.messages is not None:
        raise ConfigError(
            f"{table.name}: conversations in {columns.messages}",
            rule="a task needs a kind if its data has conversations",
            fix='Write a file NAME.toml: kind = "qa" and data = "FILE".',
        )
    rows = evenly_spaced(table.rows, _NUM_SAMPLED)
    pairs = [(fill(columns.prompt, row, whole=True), fill(columns.response, row)) for row in rows]
    pairs = [pair for pair in pairs if all(pair)]
    if not pairs:
        raise DataError(f"{table.name}: no row has a prompt and a response", fix="Correct the table.")
    prompts, answers = zip(*pairs, strict=True)
    metric = task.metric or choose_metric(prompts, answers, labels=label_names(answers))[0]
    return {"kind": _KINDS.get(metric, "qa"), "metric": metric}


def conversation_rules(task: EvaluationTask) -> ConversationSettings:
    """Return the columns of prompts and responses that a task sets."""
    return ConversationSettings(prompt=task.prompt, response=task.response)


def _stem(path: Path) -> str:
    return path.name.partition(".")[0] or path.name
