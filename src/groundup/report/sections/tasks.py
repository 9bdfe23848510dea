"""The results of evaluation tasks: a table of metrics, tables of groups, and the first items of each task."""

from __future__ import annotations

import json
from itertools import islice

from groundup.core.facts import Facts
from groundup.core.plural import pluralize
from groundup.report.formatting import interval, number, truncate
from groundup.report.html import Child, details, table, tag, untrusted
from groundup.report.record import EVALUATE, RunRecord, StageOutput

_COLUMNS = ("task", "model", "metric", "value", "baseline")
_MAX_ITEMS = 10  # Number of items that the page shows. All items are in items.jsonl.
_MAX_CHARS = 600
_TEXTS = ("prompt", "written", "predicted", "reference", "label", "target")


def task_results(run: RunRecord) -> list[Child]:
    """Return the results of all tasks. The list is empty if the run has no evaluation on tasks or on choices."""
    rows: list[list[Child]] = []
    parts: list[Child] = []
    for output in run.outputs:
        if output.stage != EVALUATE:
            continue
        model = run.evaluated_output(output)
        named = f"{model.directory.name}/" if model else "not in this run"
        for name, task in output.facts.items("tasks"):
            rows += _metrics(name, named, task)
            parts += [_groups(f"{name} by {column}", groups, 1.0) for column, groups in task.items("groups")]
            parts += _items(output, name)
        # An evaluation of choices without a task reports shares from 0 to 1.
        title = output.directory.name
        parts += [_groups(f"{title} by {column}", groups, 100.0) for column, groups in output.facts.items("groups")]
    if not rows and not parts:
        return []
    main = table("Tasks", _COLUMNS, rows) if rows else None
    note = tag("p", "Parentheses contain 95 % confidence intervals over items.", class_="note")
    return [tag("h3", "Tasks"), main, note, *parts]


def _metrics(name: str, model: str, task: Facts) -> list[list[Child]]:
    rows: list[list[Child]] = []
    for metric, found in task.items("metrics"):
        digits = 1 if found.words("unit") == "points" else 3
        direction = " (lower is better)" if found.at("less_is_better") is True else ""
        value = interval(found.estimate(), digits)
        baselines = "; ".join(f"{each}: {number(simple.number(), digits)}" for each, simple in task.items("baselines"))
        first = not rows
        title = f"{name} ({pluralize(task.count('items'), 'item')})" if first else ""
        rows.append([title, model if first else "", metric + direction, value, baselines if first else ""])
    return rows


def _groups(title: str, groups: Facts, scale: float) -> Child:
    rows: list[list[Child]] = []
    for name, found in groups.items():
        estimate = found.estimate()
        if estimate is not None:
            rows.append([truncate(name, 80), interval(estimate, 1, scale=scale)])
    return details(f"{title}: {pluralize(len(rows), 'group')}", table(title, ("group", "value"), rows, num_numeric=1))


def _items(output: StageOutput, task: str) -> list[Child]:
    """Return the first items of a task that have texts."""
    path = output.directory / "items.jsonl"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        found = (Facts(json.loads(line)) for line in file)
        chosen = list(islice((item for item in found if item.words("task") == task), _MAX_ITEMS))
    shown = []
    for item in chosen:
        texts = [(key, item.words(key)) for key in _TEXTS if item.words(key)]
        shown += [
            tag("div", tag("p", key, class_="who"), untrusted(truncate(text, _MAX_CHARS)), class_="turn")
            for key, text in texts
        ]
    note = tag("p", f"All items are in {output.directory.name}/items.jsonl.", class_="note")
    return [details(f"{task}: the first {pluralize(len(chosen), 'item')}", *shown, note)] if shown else []
