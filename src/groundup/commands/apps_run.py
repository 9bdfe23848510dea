"""`groundup apps NAME`: an application on a text, a file, or every row of a table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.apps import Catalog
from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now, visible
from groundup.core.errors import ConfigError, GroundupError
from groundup.core.files import atomic_file

if TYPE_CHECKING:
    from groundup.apps.declaration import App
    from groundup.apps.steps import AppResult

EXAMPLE = "groundup apps run summarize minutes.txt --model runs/quickstart"


class AppsRunConfig(Config):
    """Which application, on what, by which model."""

    name: str = setting(help="of the application: see groundup apps list", positional=True)
    input: str | None = setting(None, help="a file, a text, or - for standard input", positional=True)
    inputs: dict[str, Any] = setting({}, help="name = value of other inputs")
    model: Path = setting(help="model directory, or a run (its newest language model)", flag=True)
    batch: Path | None = setting(None, help="table (CSV, JSONL, ...) of many inputs", flag=True)
    column: tuple[str, ...] = setting((), help="of the table: INPUT=COLUMN", flag=True)
    out: Path | None = setting(None, help="file for its results: .jsonl or .csv", flag=True)
    temperature: float | None = setting(None, help="0 takes the likeliest words; default: as declared", flag=True)
    max_tokens: int | None = setting(None, help="of what comes out; default: as declared", flag=True, gt=0)
    seed: int | None = setting(None, help="the same seed gives the same result", flag=True, ge=0)
    apps: Path | None = setting(None, help="folder with applications of your own; default: ./apps", flag=True)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one")


def run(
    config: AppsRunConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> list[AppResult | GroundupError]:
    """One result, or one of each row; `on_text` receives them: text as it is written, or JSON, one object a line.

    Raises:
        ConfigError: no such application, wrong inputs, or more than the model's context can take.
        DataError: no model, no file or no table there.
    """
    from groundup.apps.files import read_input, result_json
    from groundup.apps.prompter import Options
    from groundup.apps.runner import open_runner

    console = console or Console()
    app = Catalog(config.apps).named(config.name).app
    own = {} if config.input is None else {app.first.name: read_input(config.input)}
    given = config.inputs | own
    if config.batch is not None:
        return _run_batch(config, app, given, console, on_text)
    if config.column:
        raise ConfigError(
            f"--column {config.column[0]} without --batch",
            rule="columns are those of a table",
            fix="Give --batch FILE.",
        )
    if config.input is None and app.first.name not in config.inputs and app.first.default is None:
        raise ConfigError(
            f"{app.name}: nothing to work on",
            rule=f"needed: {app.first.about}",
            fix="Give a file, a text, or - for standard input; or a table: --batch FILE.",
        )
    options = Options(config.temperature, config.max_tokens, config.seed)
    with ExitStack() as stack:
        runner = open_runner(config.model, config.device, console, stack)
        streams = app.output.kind == "text" and not json_lines
        with _Parts(console) as parts:
            # A terminal must not obey what a model writes.
            shown = (lambda text: on_text(visible(text))) if streams else (lambda _: None)
            result = runner.run(app, given, options, on_text=shown, on_progress=parts.show)
        for note in result.notes:
            console.note(note)
        likely = f"\t{result.probabilities[result.value]:.3f}" if result.probabilities else ""
        on_text(result_json(result) if json_lines else "\n" if streams else visible(result.text + likely) + "\n")
    return [result]


def _run_batch(
    config: AppsRunConfig, app: App, constants: dict[str, Any], console: Console, on_text: Callable[[str], object]
) -> list[AppResult | GroundupError]:
    """One result for each row of a table; `constants` are the inputs that are the same for all of them."""
    from groundup.apps.batches import read_batch
    from groundup.apps.files import batch_result_lines
    from groundup.apps.prompter import Options
    from groundup.apps.runner import open_runner
    from groundup.hub.resolve import is_classifier

    assert config.batch is not None
    labels = [app.output.labels_from] if is_classifier(config.model) else []  # a classifier has its own
    batch = read_batch(app, config.batch, constants=constants, columns=config.column, optional=labels)
    for note in batch.notes:
        console.note(note)
    rows = batch.inputs
    options = Options(config.temperature, config.max_tokens, config.seed)
    with ExitStack() as stack:
        runner = open_runner(config.model, config.device, console, stack)
        with console.progress(app.name, len(rows), "rows") as bar:
            results = runner.run_many(app, rows, options, advance=bar.advance)
    failed = [result for result in results if isinstance(result, GroundupError)]
    if failed:
        console.warn(f"{len(failed):,} of {len(results):,} rows could not be done, the first because: {failed[0]}")
    lines = batch_result_lines(batch.rows, results, as_csv=config.out is not None and config.out.suffix == ".csv")
    if config.out is None:
        for line in lines:
            on_text(line)
    else:
        with atomic_file(config.out) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        console.note(f"{config.out}: {len(results):,} rows")
    return results


class _Parts:
    """The progress of a long input, once it turns out to be one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = ExitStack()
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, done: int, total: int) -> None:
        """`done` of `total` parts have been read; with 0 of more than one, a round begins."""
        if done == 0:
            self._stack.close()
            self._bar, self._done = None, 0
            if total > 1:
                self._bar = self._stack.enter_context(self._console.progress("reading", total, "parts"))
        elif self._bar is not None:
            self._bar.advance(done - self._done)
            self._done = done
