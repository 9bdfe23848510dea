"""`groundup apps evaluate`: evaluate applications on their test sets, with one or two models."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.apps import open_catalog
from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now
from groundup.core.errors import ConfigError
from groundup.core.markdown import markdown_table

if TYPE_CHECKING:
    from groundup.apps.catalog import CatalogEntry
    from groundup.apps.test_set import AppOutputs

EXAMPLE = "groundup apps evaluate --model runs/notes/base --fine-tuned runs/notes/chat"


class AppsEvaluateConfig(Config):
    """Settings of `groundup apps evaluate`."""

    names: tuple[str, ...] = setting(
        (), help="Names of applications; default: all applications that have a test set", positional=True
    )
    model: Path = setting(help="Model directory, or a run (its newest language model)", flag=True)
    fine_tuned: Path | None = setting(None, help="Fine-tuned model to compare with --model", flag=True)
    test: Path | None = setting(
        None, help="Test set of one application (JSONL with its inputs and output); default: its own", flag=True
    )
    apps: Path | None = setting(None, help="Directory with your applications; default: ./apps", flag=True)
    seed: int = setting(0, help="Random seed for confidence intervals", flag=True, ge=0)
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available", flag=True)


def run(
    config: AppsEvaluateConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> list[dict[str, Any]]:
    """Evaluate applications on their test sets with greedy decoding.

    Args:
        config: Settings of the command.
        console: Console for messages.
        on_text: Function that is called with the lines of a Markdown table, or with lines of JSON.
        json_lines: Whether to print one JSON object per line.

    Returns:
        The scores of each application.

    Raises:
        ConfigError: An application is unknown, or an application has no test set.
        DataError: The directory does not contain a model, or a test set is damaged.
    """
    from groundup.evaluation.applications import COLUMNS, compare_applications, rows, to_json
    from groundup.evaluation.comparisons.examples import COLUMNS as COMPARED

    console = console or Console()
    catalog = open_catalog(config.apps, console)
    chosen = [catalog.named(name) for name in config.names] or list(catalog.values())
    chosen = [found for found in chosen if found.app.test is not None]
    if config.test is not None:
        if len(chosen) != 1:
            raise ConfigError(f"--test {config.test} with {len(chosen)} applications", fix="Name one application.")
        chosen = [replace(chosen[0], own_test=config.test)]
    if not chosen:
        raise ConfigError(
            f"{', '.join(config.names) or config.apps}: no test set",
            fix="Add a table [test] to the application's file.",
        )
    models = [config.model, *([config.fine_tuned] if config.fine_tuned else [])]
    tested = [_tested(model, config, chosen, console) for model in models]
    made: list[dict[str, Any]] = []
    table: list[tuple[str, ...]] = []
    for before, *after in zip(*tested, strict=True):
        if after:
            compared = compare_applications(before, after[0], seed=config.seed)
            table += [line.row() for line in compared]
            made.append({"app": before.name, "lines": [line.to_json() for line in compared]})
        else:
            table += rows(before, seed=config.seed)
            made.append(to_json(before, seed=config.seed))
    columns = COMPARED if config.fine_tuned else COLUMNS
    if json_lines:
        for each in made:
            on_text(json.dumps(each, ensure_ascii=False) + "\n")
    else:
        on_text(markdown_table(columns, table))
    return made


def _tested(model: Path, config: AppsEvaluateConfig, chosen: list[CatalogEntry], console: Console) -> list[AppOutputs]:
    from groundup.apps.runner import open_runner
    from groundup.apps.scores import save_scores, score_of, warning_of
    from groundup.apps.test_set import run_test_set

    with ExitStack() as stack:
        runner = open_runner(model, config.device, console, stack)
        total = sum(len(found.test_rows()) for found in chosen)
        with console.progress(str(model), total, "examples") as bar:
            tested = [run_test_set(runner, found, advance=bar.advance) for found in chosen]
    scores = {each.name: score_of(each, found, seed=config.seed) for each, found in zip(tested, chosen, strict=True)}
    for found in chosen:
        score = scores[found.app.name]
        console.note(f"{found.app.name}: {warning_of(found, score) or score.sentence + '.'}")
    assert runner.directory is not None
    if config.test is None:  # The stored score is the one of the application's own test set.
        console.note(f"Stored in {save_scores(runner.directory, scores)}.")
    return tested
