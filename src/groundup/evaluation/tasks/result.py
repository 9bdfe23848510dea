"""Result of a model on one evaluation task, and the report of several tasks.

Shape letters: E: number of items.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from operator import eq
from typing import Any

import numpy as np

from groundup.core.errors import DataError
from groundup.core.markdown import markdown_table
from groundup.core.plural import pluralize
from groundup.evaluation.measure import Measure
from groundup.evaluation.stats import Interval

FORMAT_VERSION = 1
TOO_LONG = "too long for the context"  # reason for which an item is dropped
COLUMNS = ("task", "metric", "value", "95 % interval", "baseline")
GROUP_COLUMNS = ("value", "95 % interval", "items")

Groups = Mapping[str, Mapping[str, Measure]]
"""For each column that divides the items, the main metric of each group."""


@dataclass(frozen=True, eq=False)
class TaskResult:
    """Result of one model on one task.

    Attributes:
        name: name of the task.
        kind: kind of the task.
        measures: metrics over the same items, starting with the main metric.
        items: results of each item as JSON values, in the order of the data.
        columns: description of the columns that were read.
        groups: main metric of each group.
        baselines: main metric of each baseline that does not use a model, keyed by the name of the baseline.
        dropped: number of dropped rows for each reason.
        numbers: number of each item in the data, by which the items of two models are paired; empty if the items depend
            on the model.
        notes: remarks on the method, such as the prompt format.
    """

    name: str
    kind: str
    measures: Sequence[Measure]
    items: Sequence[Mapping[str, Any]]
    columns: str = ""
    groups: Groups = field(default_factory=dict)
    baselines: Mapping[str, Measure] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    numbers: Sequence[int] = ()
    notes: Sequence[str] = ()
    seed: int = 0

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Interval of each metric, keyed by its name."""
        return {measure.name: measure.interval(seed=self.seed) for measure in self.measures}

    @property
    def sentence(self) -> str:
        """Sentence that reports the main metric."""
        main = self.measures[0]
        baselines = "".join(f"; {name}: {shown(each.estimate, each)}" for name, each in self.baselines.items())
        items = pluralize(len(self.items), "item")
        if long := self.dropped.get(TOO_LONG):
            items += f" ({TOO_LONG}: {long:,})"
        return f"{self.name}: {main.name} {shown(main.estimate, main)} on {items}{baselines}."

    def of(self, numbers: Container[int]) -> TaskResult:
        """Return the result on a part of the items, without groups.

        Args:
            numbers: numbers of the items to keep.
        """
        kept = [number in numbers for number in self.numbers]
        chosen_E = np.array(kept, dtype=bool)
        return replace(
            self,
            measures=[measure.of(chosen_E) for measure in self.measures],
            items=list(compress(self.items, kept)),
            numbers=list(compress(self.numbers, kept)),
            baselines={name: measure.of(chosen_E) for name, measure in self.baselines.items()},
            groups={},
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return one table row per metric. The columns are `COLUMNS`."""
        found: list[tuple[str, ...]] = []
        for place, measure in enumerate(self.measures):
            # Baselines are only known for the main metric.
            simple = {} if place else self.baselines
            baselines = "; ".join(f"{name}: {shown(each.estimate, each)}" for name, each in simple.items())
            name = "" if place else f"{self.name} ({pluralize(len(self.items), 'item')})"
            found.append((name, measure.name, *self._cells(measure, self.intervals[measure.name]), baselines))
        return found

    def group_rows(self, column: str) -> list[tuple[str, ...]]:
        """Return the table of groups of a column: name, value, interval and number of items."""
        parts = self.groups[column]
        return [
            (name, *self._cells(each, each.interval(seed=self.seed)), f"{len(each.sums_EK):,}")
            for name, each in parts.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the result without its items as JSON values."""
        return {
            "kind": self.kind,
            "summary": self.sentence,
            "items": len(self.items),
            "metrics": {
                measure.name: self.intervals[measure.name].to_json()
                | {"unit": measure.unit, "less_is_better": measure.lower_is_better}
                for measure in self.measures
            },
            "baselines": {name: each.estimate for name, each in self.baselines.items()},
            "groups": {
                column: {
                    name: each.interval(seed=self.seed).to_json() | {"items": len(each.sums_EK)}
                    for name, each in parts.items()
                }
                for column, parts in self.groups.items()
            },
            "columns": self.columns,
            "dropped": dict(self.dropped),
            "notes": list(self.notes),
        }

    def _cells(self, measure: Measure, interval: Interval) -> tuple[str, str]:
        return shown(interval.estimate, measure), f"{shown(interval.low, measure)} to {shown(interval.high, measure)}"


def on_shared_items(results: Sequence[TaskResult]) -> tuple[list[TaskResult], str | None]:
    """Return the results of several models on the items that all models have scored, paired by their numbers.

    A model skips an item that does not fit into its context.

    Args:
        results: results on the same task, one per model.

    Returns:
        The results, and a note if items are left out.

    Raises:
        DataError: the models have no items in common, or their items depend on the model and differ.
    """
    first = results[0]
    if not any(each.numbers for each in results):  # Without numbers, an item is identified by its text.
        texts = [[(item.get("prompt"), item.get("reference")) for item in each.items] for each in results]
        if len({len(of) for of in texts}) > 1 or any(of != texts[0] for of in texts):
            same = [sum(map(eq, texts[0], of)) for of in texts]
            raise DataError(
                f"task {first.name}: the models have different items: of {len(texts[0]):,} items of the first model, "
                f"another one shares only {min(same):,}",
                fix="Compare models with the same tokenizer and a sufficient context, or leave out this task.",
            )
        return list(results), None
    shared = set(first.numbers).intersection(*(each.numbers for each in results))
    if not shared:
        raise DataError(
            f"task {first.name}: none of its items fits into the context of all models",
            fix="Give shorter items, or set max_tokens in the file of the task.",
        )
    tried = max(len(each.numbers) + each.dropped.get(TOO_LONG, 0) for each in results)
    left = tried - len(shared)
    if not left:
        return list(results), None
    note = f"{first.name}: {pluralize(left, 'item')} left out, because not all items fit into the context of all models"
    kept = ", ".join(f"{len(each.numbers):,}" for each in results)
    return [each.of(shared) for each in results], f"{note} (items that fit: {kept})."


@dataclass(frozen=True, eq=False)
class TaskReport:
    """Results of one model on several tasks.

    Attributes:
        results: one result per task.
    """

    results: Sequence[TaskResult]

    @property
    def sentence(self) -> str:
        """Sentences that report the main metric of each task."""
        return " ".join(result.sentence for result in self.results)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Rows of the table of all metrics. The columns are `COLUMNS`."""
        return [row for result in self.results for row in result.rows()]

    @property
    def items(self) -> list[Mapping[str, Any]]:
        """Results of all items as JSON values, each with the name of its task."""
        return [{"task": result.name, **item} for result in self.results for item in result.items]

    @property
    def facts(self) -> dict[str, Any]:
        """Results as JSON values, keyed by the name of the task."""
        return {"tasks": {result.name: result.to_json() for result in self.results}}

    def to_json(self) -> dict[str, Any]:
        """Return the report without the items as JSON values."""
        return {"format_version": FORMAT_VERSION, "summary": self.sentence, **self.facts}

    def to_markdown(self) -> str:
        """Return the report as a Markdown page."""
        lines = ["# Evaluation", "", self.sentence, "", markdown_table(COLUMNS, self.rows)]
        lines += [
            "Intervals: 95 %, percentile bootstrap over items; Wilson's if all items are right, or all are wrong.",
            "",
        ]
        for result in self.results:
            lines += [f"- {result.name}: {note}" for note in result.notes]
            lines += [f"- {result.name}: dropped: {reason}: {count:,}" for reason, count in result.dropped.items()]
        for result in self.results:
            for column in result.groups:
                lines += ["", f"## {result.name} by {column}", ""]
                lines.append(markdown_table((column, *GROUP_COLUMNS), result.group_rows(column)).rstrip())
        return "\n".join(lines) + "\n"


def by_group(measure: Measure, groups: Mapping[str, Sequence[str]]) -> Groups:
    """Return the metric in each group of items.

    Args:
        measure: metric over all items.
        groups: for each column, the group of each item.

    Returns:
        For each column, the groups in alphabetical order with their metric.
    """
    found: dict[str, dict[str, Measure]] = {}
    for column, names in groups.items():
        of_E = np.array(names)
        found[column] = {str(name): measure.of(of_E == name) for name in np.unique(of_E)}
    return found


def with_scores(rows: Sequence[Mapping[str, Any]], found: Sequence[Measure]) -> list[dict[str, Any]]:
    """Return the results of items together with the value of each metric on each item."""
    columns = {measure.name: measure.per_example().tolist() for measure in found}
    return [{**row, **{name: values[place] for name, values in columns.items()}} for place, row in enumerate(rows)]


def shown(value: float, measure: Measure) -> str:
    """Format a value with 1 decimal place if the unit is points, otherwise with 3."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.1f}" if measure.unit == "points" else f"{value:.3f}"
