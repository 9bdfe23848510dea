"""`groundup apps NAME`: run an application on a text, a file, or the rows of a table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.apps import Catalog
from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now, visible
from groundup.core.errors import ConfigError, GroundupError
from groundup.core.files import atomic_file
from groundup.core.plural import pluralize

if TYPE_CHECKING:
    from groundup.apps.catalog import CatalogEntry
    from groundup.apps.steps import AppResult

EXAMPLE = "groundup apps run summarize minutes.txt --model runs/quickstart"


class AppsRunConfig(Config):
    """Settings of `groundup apps run`."""

    name: str = setting(help="Name of the application; groundup apps list shows all names", positional=True)
    input: str | None = setting(None, help="File name, text, or - for standard input", positional=True)
    inputs: dict[str, Any] = setting({}, help="Other inputs of the application, as name = value")
    model: Path = setting(help="Model directory, or a run (its newest language model)", flag=True)
    adapter: str | None = setting(
        None, help="Adapter of --model, or none; default: an adapter that was trained for the application", flag=True
    )
    batch: Path | None = setting(None, help="Table (CSV, JSONL, ...) whose rows contain the inputs", flag=True)
    column: tuple[str, ...] = setting((), help="Column of the table that contains an input, as INPUT=COLUMN", flag=True)
    out: Path | None = setting(None, help="File for the results of --batch: .jsonl or .csv", flag=True)
    temperature: float | None = setting(None, help="Sampling temperature; default: from the application", flag=True)
    max_tokens: int | None = setting(
        None, help="Maximum number of tokens to generate; default: from the application", flag=True, gt=0
    )
    seed: int | None = setting(None, help="Random seed", flag=True, ge=0)
    apps: Path | None = setting(None, help="Directory with your applications; default: ./apps", flag=True)
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available")


def run(
    config: AppsRunConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> list[AppResult | GroundupError]:
    """Run an application on one text, or on each row of a table.

    Args:
        config: Settings of the command.
        console: Console for messages.
        on_text: Function that is called with pieces of generated text, or with lines of JSON or CSV.
        json_lines: Whether to print one JSON object per line.

    Returns:
        A list with one result, or with one result per row of the table.

    Raises:
        ConfigError: The application is unknown, or an input is invalid or too long for the context.
        DataError: The model, the file or the table does not exist.
    """
    from groundup.apps.application_models import choose_adapter
    from groundup.apps.files import read_input, result_json
    from groundup.apps.first_use import show_score
    from groundup.apps.progress import ChunkProgress
    from groundup.apps.prompter import Options
    from groundup.apps.runner import open_runner

    console = console or Console()
    found = Catalog(config.apps).named(config.name)
    app = found.app
    own = {} if config.input is None else {app.first.name: read_input(config.input)}
    given = config.inputs | own
    if config.batch is not None:
        return _run_batch(config, found, given, console, on_text)
    if config.column:
        raise ConfigError(f"--column {config.column[0]} requires --batch", fix="Give a table: --batch FILE.")
    if config.input is None and app.first.name not in config.inputs and app.first.default is None:
        raise ConfigError(
            f"{app.name}: no input ({app.first.about})",
            fix="Give a file, a text, - for standard input, or a table with --batch FILE.",
        )
    options = Options(config.temperature, config.max_tokens, config.seed)
    model = choose_adapter(app, config.model, config.adapter, console, given)
    with ExitStack() as stack:
        runner = open_runner(model, config.device, console, stack)
        show_score(runner, found, model, console)
        streams = app.output.kind == "text" and not json_lines
        with ChunkProgress(console) as progress:
            # Control characters in generated text must not reach the terminal.
            shown = (lambda text: on_text(visible(text))) if streams else (lambda _: None)
            result = runner.run(app, given, options, on_text=shown, on_progress=progress.show)
        for note in result.notes:
            console.note(note)
        probability = f"\t{result.probabilities[result.value]:.3f}" if result.probabilities else ""
        on_text(result_json(result) if json_lines else "\n" if streams else visible(result.text + probability) + "\n")
    return [result]


def _run_batch(
    config: AppsRunConfig,
    found: CatalogEntry,
    constants: dict[str, Any],
    console: Console,
    on_text: Callable[[str], object],
) -> list[AppResult | GroundupError]:
    """Return one result per row of a table. All rows share the inputs in `constants`."""
    from groundup.apps.application_models import choose_adapter
    from groundup.apps.batches import read_batch
    from groundup.apps.files import batch_result_lines
    from groundup.apps.first_use import show_score
    from groundup.apps.prompter import Options
    from groundup.apps.runner import open_runner
    from groundup.hub.resolve import is_classifier

    assert config.batch is not None
    app = found.app
    read = partial(read_batch, app, config.batch, constants=constants, columns=config.column)
    batch = read(optional=[app.output.labels_from])
    model = choose_adapter(app, config.model, config.adapter, console, constants, batch.columns)
    if not is_classifier(model):  # A classifier has its own labels.
        batch = read()
    for note in batch.notes:
        console.note(note)
    rows = batch.inputs
    options = Options(config.temperature, config.max_tokens, config.seed)
    with ExitStack() as stack:
        runner = open_runner(model, config.device, console, stack)
        show_score(runner, found, model, console)
        with console.progress(app.name, len(rows), "rows") as bar:
            results = runner.run_many(app, rows, options, advance=bar.advance)
    failed = [result for result in results if isinstance(result, GroundupError)]
    if failed:
        console.warn(f"{pluralize(len(failed), 'row')} of {len(results):,} failed. First error: {failed[0]}")
    lines = batch_result_lines(batch.rows, results, as_csv=config.out is not None and config.out.suffix == ".csv")
    if config.out is None:
        for line in lines:
            on_text(line)
    else:
        with atomic_file(config.out) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        console.note(f"{config.out}: {pluralize(len(results), 'row')}")
    return results
