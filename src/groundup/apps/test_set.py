"""An application on its own test set: what a model writes, or how likely it finds what a person wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.apps.catalog import CatalogEntry
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.declaration import fill_numbers
from groundup.apps.json_text import as_text
from groundup.apps.prompter import Options
from groundup.apps.runner import AppRunner
from groundup.apps.steps import AppResult
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import MetricName


@dataclass(slots=True)
class AppOutputs:
    """What came out.

    Attributes:
        inputs: the text that each example is about.
        references: what is right, as a person reads it.
        written: what the model made of each; of what it refused, nothing. Empty where `nats` counts.
        nats: minus the natural logarithm of the probability of each reference; empty where `written` counts.
        values, schemas: what was written as JSON, and the schema that it must have; empty where it is text.
        choices: of labels, how many there were to choose from; else empty.
    """

    name: str
    metric: MetricName
    inputs: Sequence[str]
    references: Sequence[str]
    written: Sequence[str]
    nats: Sequence[float]
    values: Sequence[Any]
    schemas: Sequence[Mapping[str, Any]]
    choices: Sequence[int]

    @property
    def labelled(self) -> bool:
        """Whether the outputs are labels."""
        return bool(self.choices)


def run_test_set(
    runner: AppRunner | ClassifierRunner, found: CatalogEntry, *, advance: Callable[[float], object] = lambda _: None
) -> AppOutputs:
    """Try an application on its test set, the likeliest word each time.

    Args:
        advance: called with the number of examples done since the last call.

    Raises:
        ConfigError: it declares no test set, or this model cannot do it.
        DataError: a damaged test set.
    """
    app, rows = found.app, found.test_rows()
    if app.test is None or not rows:
        raise ConfigError(f"{app.name}: no test set", rule="it is tried on what it declares", fix="Add a table [test].")
    given = [{name: value for name, value in row.items() if name != "output"} for row in rows]
    outputs = [row["output"] for row in rows]
    nats: Sequence[float] = []
    written: list[str] = []
    values: list[Any] = []
    schemas: list[Any] = []
    if app.test.metric == "likelihood":
        if isinstance(runner, ClassifierRunner):
            raise ConfigError(f"{app.name}: a classifier", rule="it writes nothing", fix="Take a language model.")
        nats = runner.nats(app, given, outputs)
        advance(len(rows))
    else:
        results = runner.run_many(app, given, Options(temperature=0.0), advance=advance)
        written = [result.text if isinstance(result, AppResult) else "" for result in results]
        if app.output.kind == "json":
            values = [result.value if isinstance(result, AppResult) else None for result in results]
            schemas = [fill_numbers(app.output.json_schema, row) for row in given]
            outputs = [as_text(_json(found, output), found.app.output.lettered) for output in outputs]
    texts = [str(row[app.first.name]) for row in given]
    named = [app.output.labels or row[app.output.labels_from] for row in given] if app.output.kind == "label" else []
    choices = [len(labels) for labels in named]
    return AppOutputs(app.name, app.test.metric, texts, outputs, written, nats, values, schemas, choices)


def _json(found: CatalogEntry, output: str) -> Any:
    try:
        return json.loads(output)
    except ValueError as error:
        raise DataError(
            f"test set of {found.app.name}: {output[:60]!r}: {error}",
            rule="where an application writes JSON, its test set holds JSON",
            fix="Correct it.",
        ) from None
