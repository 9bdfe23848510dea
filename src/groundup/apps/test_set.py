"""Evaluation of an application on its test set: generated outputs, or the likelihood of the references."""

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
    """Outputs of an application for its test set.

    Attributes:
        name: Name of the application.
        metric: Metric of the test set.
        inputs: Value of the main input in each example.
        references: Reference output of each example, as readable text.
        written: Generated output of each example, or "" if the generation failed. Empty if the metric is "likelihood".
        nats: Negative log-likelihood of each reference in nats. Empty unless the metric is "likelihood".
        values: Parsed JSON output of each example. Empty unless the application outputs JSON.
        schemas: JSON schema of each example. Empty unless the application outputs JSON.
        choices: Number of labels to choose from in each example. Empty unless the application outputs labels.
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
        """Whether the application outputs labels."""
        return bool(self.choices)


def run_test_set(
    runner: AppRunner | ClassifierRunner, found: CatalogEntry, *, advance: Callable[[float], object] = lambda _: None
) -> AppOutputs:
    """Run an application on its test set with greedy decoding.

    Args:
        runner: Runner that holds the model.
        found: Application with a test set.
        advance: Function that is called with the number of examples that were finished since the last call.

    Returns:
        The outputs for all examples.

    Raises:
        ConfigError: The application has no test set, or cannot run on this kind of model.
        DataError: The test set is damaged.
    """
    app, rows = found.app, found.test_rows()
    if app.test is None or not rows:
        raise ConfigError(f"{app.name} has no test set", fix="Add a table [test] to its file.")
    given = [{name: value for name, value in row.items() if name != "output"} for row in rows]
    outputs = [row["output"] for row in rows]
    nats: Sequence[float] = []
    written: list[str] = []
    values: list[Any] = []
    schemas: list[Any] = []
    if app.test.metric == "likelihood":
        if isinstance(runner, ClassifierRunner):
            raise ConfigError(f"{app.name} generates text, and the model is a classifier", fix="Use a language model.")
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
            rule="the application outputs JSON, so its references must be JSON",
            fix="Correct the test set.",
        ) from None
