"""Scores of applications on their test sets.

An application is scored by metrics of its generated outputs or by the bits per byte of the reference outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np

from groundup.core.types import MetricName
from groundup.evaluation.comparisons.examples import Comparison
from groundup.evaluation.measure import ratio
from groundup.evaluation.metrics import Measure, label_names, labels, mean, measures

COLUMNS = ("application", "metric", "score (95 %)", "baseline", "examples")


class Tested(Protocol):
    """Outputs of one model on the test set of an application.

    `groundup.apps.test_set.AppOutputs` implements this protocol and documents the attributes.
    """

    name: str
    metric: str
    inputs: Sequence[str]
    references: Sequence[str]
    written: Sequence[str]
    nats: Sequence[float]
    values: Sequence[Any]
    schemas: Sequence[Mapping[str, Any]]
    choices: Sequence[int]
    hits: Sequence[float]
    checks: Sequence[Mapping[str, bool]]
    rules: Sequence[Mapping[str, bool]]
    baseline: str
    baseline_written: Sequence[str]
    baseline_hits: Sequence[float]

    @property
    def labelled(self) -> bool:
        """Whether the outputs are labels."""


def measures_of(tested: Tested) -> list[Measure]:
    """Return the metrics of an application's outputs, starting with the primary metric."""
    if tested.metric == "likelihood":
        sizes = [len(text.encode()) for text in tested.references]
        bits = [nats / math.log(2) for nats in tested.nats]
        return [
            Measure("bits per byte", np.stack([bits, np.array(sizes, float)], 1), ratio, "bits", lower_is_better=True)
        ]
    if tested.hits:
        found = [_share(tested, tested.hits)]
        for name in tested.checks[0] if tested.checks else ():
            found.append(mean(name, [100.0 * passed[name] for passed in tested.checks]))
        return found
    found = _of(tested, tested.written)
    if tested.schemas:
        held = [100.0 * matches_schema(*pair) for pair in zip(tested.values, tested.schemas, strict=True)]
        found.append(mean("valid JSON", held))
    for name in tested.rules[0] if tested.rules else ():
        found.append(mean(name, [100.0 * kept[name] for kept in tested.rules]))
    return found


def baseline_measures(tested: Tested) -> dict[str, Measure]:
    """Return the primary metric of the baseline, keyed by its name, or nothing if the application has no baseline."""
    if tested.baseline_hits:
        return {tested.baseline: _share(tested, tested.baseline_hits)}
    if tested.baseline_written:
        return {tested.baseline: _of(tested, tested.baseline_written)[0]}
    if tested.labelled:
        return {"random guess": mean("accuracy", [100 / count for count in tested.choices])}
    return {}


def _share(tested: Tested, hits: Sequence[float]) -> Measure:
    return mean("passed" if tested.checks else "accuracy", [100 * hit for hit in hits])


def _of(tested: Tested, written: Sequence[str]) -> list[Measure]:
    if tested.labelled:
        return labels(written, tested.references)
    name = cast(MetricName, tested.metric)
    return measures(name, written, tested.references, labels=label_names(tested.references))


def matches_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """Check a JSON value against a JSON schema with the `jsonschema` package."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema).is_valid(value)


def schema_problem(value: Any, schema: Mapping[str, Any]) -> str:
    """Return how a JSON value violates a JSON schema, with the path of the value, or "" if it matches."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(value))
    return "" if error is None else f"{'.'.join(map(str, error.path)) or 'the whole'}: {error.message[:200]}"


def compare_applications(before: Tested, after: Tested, *, seed: int = 0) -> list[Comparison]:
    """Compare the outputs of two models on the test set of an application, with one comparison per metric."""
    what = f"{before.name}, {len(before.references)} examples"
    pairs = zip(measures_of(before), measures_of(after), strict=True)
    baselines = baseline_measures(before)
    return [
        Comparison(old, new, seed, "task", what, baselines if place == 0 else {})
        for place, (old, new) in enumerate(pairs)
    ]


def rows(tested: Tested, *, seed: int = 0) -> list[tuple[str, ...]]:
    """Return the table rows of one model, one row per metric. The columns are `COLUMNS`."""
    baselines = "; ".join(
        f"{name}: {_shown(measure.estimate, measure)}" for name, measure in baseline_measures(tested).items()
    )
    found: list[tuple[str, ...]] = []
    for place, measure in enumerate(measures_of(tested)):
        interval = measure.interval(seed=seed)
        bounds = [_shown(bound, measure) for bound in (interval.low, interval.high)]
        score = f"{_shown(interval.estimate, measure)} [{bounds[0]}, {bounds[1]}]"
        examples = str(len(tested.references))
        found.append((tested.name, measure.name, score, baselines if place == 0 else "", examples))
    return found


def to_json(tested: Tested, *, seed: int = 0) -> dict[str, Any]:
    """Return the metrics and the generated outputs as JSON values."""
    counted = {
        measure.name: measure.interval(seed=seed).to_json() | {"less": measure.lower_is_better}
        for measure in measures_of(tested)
    }
    return {
        "app": tested.name,
        "examples": len(tested.references),
        "figures": counted,
        "without_a_model": {name: measure.estimate for name, measure in baseline_measures(tested).items()},
        "written": list(tested.written),
    }


def _shown(value: float, measure: Measure) -> str:
    """Format a value with 1 decimal place if the unit is points, otherwise with 3."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.1f}" if measure.unit == "points" else f"{value:.3f}"
