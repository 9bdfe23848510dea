"""Evaluation of an application on its test set, together with a baseline that does not use a model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.apps.baselines import baseline_of, tfidf_choice
from groundup.apps.catalog import CatalogEntry
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.declaration import App, fill_numbers
from groundup.apps.inputs import check_inputs
from groundup.apps.json_text import as_text
from groundup.apps.lettered_options import readable_value
from groundup.apps.output_checks import check_output, decoding_rules
from groundup.apps.prompter import Options
from groundup.apps.runner import AppRunner
from groundup.apps.steps import AppResult
from groundup.core.errors import ConfigError, DataError
from groundup.evaluation.applications import matches_schema

_BLOCK = 4  # references that are ranked together

Advance = Callable[[float], object]


@dataclass(slots=True)
class AppOutputs:
    """Outputs of an application for its test set.

    Attributes:
        name: Name of the application.
        metric: Metric of the test set.
        inputs: Value of the main input in each example.
        references: Reference output of each example, as readable text.
        written: Generated output of each example, or "" if the generation failed. Empty if nothing was generated.
        nats: Negative log-likelihood of each reference in nats. Empty unless the metric is "likelihood".
        values: Parsed JSON output of each example. Empty unless the application outputs JSON.
        schemas: JSON schema of each example. Empty unless the application outputs JSON.
        choices: Number of labels to choose from in each example. Empty unless the application outputs labels.
        hits: 1 for each example that counts, otherwise 0. Empty unless the metric is "ranking" or "checks".
        checks: Result of each check of each example. Empty unless the metric is "checks".
        rules: Whether each output satisfies each decoding rule of the application. Empty if it declares none.
        baseline: Name of the baseline, or "" if there is none.
        baseline_written: Outputs of the baseline. Empty if the baseline has hits.
        baseline_hits: 1 for each example in which the baseline counts, otherwise 0.
    """

    name: str
    metric: str
    inputs: Sequence[str]
    references: Sequence[str]
    written: Sequence[str] = ()
    nats: Sequence[float] = ()
    values: Sequence[Any] = ()
    schemas: Sequence[Mapping[str, Any]] = ()
    choices: Sequence[int] = ()
    hits: Sequence[float] = ()
    checks: Sequence[Mapping[str, bool]] = ()
    rules: Sequence[Mapping[str, bool]] = ()
    baseline: str = ""
    baseline_written: Sequence[str] = ()
    baseline_hits: Sequence[float] = ()

    @property
    def labelled(self) -> bool:
        """Whether the application outputs labels."""
        return bool(self.choices)


def run_test_set(
    runner: AppRunner | ClassifierRunner, found: CatalogEntry, *, advance: Advance = lambda _: None
) -> AppOutputs:
    """Run an application on its test set.

    Decoding is greedy, except for checks, which use the sampling settings of the application.

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
    if isinstance(runner, ClassifierRunner) and app.output.kind != "label":
        raise ConfigError(f"{app.name} generates text, and the model is a classifier", fix="Use a language model.")
    given = [check_inputs(app, {name: value for name, value in row.items() if name != "output"}) for row in rows]
    references = [row["output"] for row in rows]
    outputs = AppOutputs(app.name, app.test.metric, [str(row[app.first.name]) for row in given], references)
    if app.output.kind == "label":
        outputs.choices = [len(app.output.labels or row[app.output.labels_from]) for row in given]
    if app.output.kind == "json":
        outputs.schemas = [fill_numbers(app.output.json_schema, row) for row in given]
        if app.test.metric != "checks":
            outputs.references = [as_text(_json(found, text), app.output.lettered) for text in references]
    if app.test.metric in ("likelihood", "ranking"):
        assert isinstance(runner, AppRunner)
        _score_references(outputs, runner, app, given, advance)
    else:
        _generate_outputs(outputs, runner, app, given, advance)
    if app.test.metric != "ranking":
        _add_baseline(outputs, app, given)
    return outputs


def _generate_outputs(
    outputs: AppOutputs,
    runner: AppRunner | ClassifierRunner,
    app: App,
    given: Sequence[Mapping[str, Any]],
    advance: Advance,
) -> None:
    checked = outputs.metric == "checks"
    results = runner.run_many(app, given, Options(seed=0) if checked else Options(temperature=0.0), advance=advance)
    outputs.written = [result.text if isinstance(result, AppResult) else "" for result in results]
    outputs.rules = [decoding_rules(app, text, row) for text, row in zip(outputs.written, given, strict=True)]
    if outputs.schemas:
        outputs.values = [result.value if isinstance(result, AppResult) else None for result in results]
    if checked:
        outputs.checks = _check(outputs, app, given, outputs.written, outputs.values)
        outputs.hits = [float(all(passed.values())) for passed in outputs.checks]


def _check(
    outputs: AppOutputs,
    app: App,
    given: Sequence[Mapping[str, Any]],
    written: Sequence[str],
    values: Sequence[Any],
) -> list[dict[str, bool]]:
    assert app.test is not None
    found = []
    for place, (row, text) in enumerate(zip(given, written, strict=True)):
        value = values[place] if values else None
        valid = matches_schema(value, outputs.schemas[place]) if outputs.schemas else None
        found.append(check_output(app.test.checks, text, value, row, valid=valid))
    return found


def _score_references(
    outputs: AppOutputs, runner: AppRunner, app: App, given: Sequence[Mapping[str, Any]], advance: Advance
) -> None:
    """Compute the likelihood of each reference, or rank the references of four inputs after each of these inputs.

    For a ranking, the likelihood of a reference is divided by its mean likelihood after the four inputs, because some
    references are more likely than others after any input.
    """
    count = len(given)
    if outputs.metric == "likelihood":
        outputs.nats = runner.nats(app, given, outputs.references)
        advance(count)
        return
    hits, baseline_hits = [], []
    for start in range(0, count, _BLOCK):
        # The last block starts earlier, so that it has four examples as well.
        block = range(max(0, min(start, count - _BLOCK)), min(start + _BLOCK, count))
        pairs = [(row, column) for row in block for column in block]
        nats = runner.nats(app, [given[row] for row, _ in pairs], [outputs.references[column] for _, column in pairs])
        score = {pair: -each for pair, each in zip(pairs, nats, strict=True)}
        prior = {column: _log_mean([score[row, column] for row in block]) for column in block}
        new = range(start, min(start + _BLOCK, count))
        hits += [float(max(block, key=lambda c: score[row, c] - prior[c]) == row) for row in new]
        choices = [outputs.references[column] for column in block]
        baseline_hits += [tfidf_choice(outputs.inputs[row], choices)[block.index(row)] for row in new]
        advance(len(new))
    outputs.hits, outputs.baseline_hits, outputs.baseline = hits, baseline_hits, "TF-IDF"


def _log_mean(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(sum(math.exp(value - highest) for value in values) / len(values))


def _add_baseline(outputs: AppOutputs, app: App, given: Sequence[Mapping[str, Any]]) -> None:
    found = baseline_of(app, given)
    if found is None:
        return
    outputs.baseline, outputs.baseline_written = found
    if outputs.metric == "checks":
        values = (
            [readable_value(text, app.output.options) for text in outputs.baseline_written] if outputs.schemas else []
        )
        shown = [as_text(value, app.output.lettered) for value in values] or outputs.baseline_written
        checks = _check(outputs, app, given, shown, values)
        outputs.baseline_hits = [float(all(passed.values())) for passed in checks]


def _json(found: CatalogEntry, output: str) -> Any:
    try:
        return json.loads(output)
    except ValueError as error:
        raise DataError(
            f"test set of {found.app.name}: {output[:60]!r}: {error}",
            rule="the application outputs JSON, so its references must be JSON",
            fix="Correct the test set.",
        ) from None
