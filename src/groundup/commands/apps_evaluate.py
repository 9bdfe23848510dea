"""`groundup apps evaluate`: every application on its test set, by one model or by two."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.apps import Catalog, open_catalog
from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now
from groundup.core.errors import ConfigError

if TYPE_CHECKING:
    from groundup.apps.test_set import AppOutputs

EXAMPLE = "groundup apps evaluate --model runs/notes/base --tuned runs/notes/chat"


class AppsEvaluateConfig(Config):
    """Which applications, by which models."""

    names: tuple[str, ...] = setting((), help="of applications; without any, all that have a test set", positional=True)
    model: Path = setting(help="model directory, or a run (its newest language model)", flag=True)
    tuned: Path | None = setting(None, help="another model, which the first is compared with", flag=True)
    apps: Path | None = setting(None, help="folder with applications of your own; default: ./apps", flag=True)
    seed: int = setting(0, help="for intervals", flag=True, ge=0)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)


def run(
    config: AppsEvaluateConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> list[dict[str, Any]]:
    """One line of the table for each figure; `on_text` receives the table in Markdown, or JSON, one object a line.

    Everything is written greedily, so that the same models give the same table.

    Raises:
        ConfigError: no such application, or none with a test set.
        DataError: no model, or a damaged test set.
    """
    from groundup.evaluation.applications import COLUMNS, compare_applications, rows, to_json
    from groundup.evaluation.comparison import COLUMNS as COMPARED

    console = console or Console()
    catalog = open_catalog(config.apps, console)
    chosen = [catalog.named(name) for name in config.names] or list(catalog.values())
    chosen = [found for found in chosen if found.app.test is not None]
    if not chosen:
        raise ConfigError(
            f"{', '.join(config.names) or config.apps}: no test set",
            rule="an application is evaluated on the test set that it declares",
            fix="Add a table [test] to it.",
        )
    models = [config.model, *([config.tuned] if config.tuned else [])]
    tested = [_tested(model, config, catalog, [found.app.name for found in chosen], console) for model in models]
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
    columns = COMPARED if config.tuned else COLUMNS
    if json_lines:
        for each in made:
            on_text(json.dumps(each, ensure_ascii=False) + "\n")
    else:
        for row in (columns, ["---"] * len(columns), *table):
            on_text(f"| {' | '.join(row)} |\n")
    return made


def _tested(
    model: Path, config: AppsEvaluateConfig, catalog: Catalog, names: list[str], console: Console
) -> list[AppOutputs]:
    from groundup.apps.runner import open_runner
    from groundup.apps.test_set import run_test_set

    with ExitStack() as stack:
        runner = open_runner(model, config.device, console, stack)
        total = sum(len(catalog[name].test_rows()) for name in names)
        with console.progress(str(model), total, "examples") as bar:
            return [run_test_set(runner, catalog[name], advance=bar.advance) for name in names]
