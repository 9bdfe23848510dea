"""`groundup compare-recipes`: compare two training recipes by several models each, which differ in their seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from groundup.commands._result import result_facts, show_result
from groundup.core.artifact import Artifact, begin, read
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError

EXAMPLE = "groundup compare-recipes --before runs/small --after runs/large --out runs/compared"


class CompareRecipesConfig(Config):
    """Settings of `groundup compare-recipes`."""

    before: tuple[Path, ...] = setting((), help="run of the first recipe, or a directory of its runs", flag=True)
    after: tuple[Path, ...] = setting((), help="run of the second recipe, or a directory of its runs", flag=True)
    out: Path = setting(help="directory for the report", flag=True)
    text: Path | None = setting(None, help="held-out text: file, folder or corpus; default: the first run's", flag=True)
    task: tuple[Path, ...] = setting((), help="task to score: a table of items, or a TOML file", flag=True)
    max_bytes: int = setting(200_000, help="approximate maximum size of the text, in bytes", gt=0)
    device: str | None = setting(None, help="device, such as cpu or cuda; default: a GPU if available", flag=True)
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="dtype to compute in; default: float32")


def run(config: CompareRecipesConfig, *, console: Console | None = None) -> Artifact:
    """Compare two recipes, and write `compare.json` and `compare.md`.

    Raises:
        ConfigError: a recipe has fewer than three models, or there is nothing to compare on.
        DataError: a model does not exist, or a task is not valid.
    """
    from groundup.data.texts import general_text_identity
    from groundup.evaluation.comparisons.examples import COLUMNS, write_comparison
    from groundup.evaluation.comparisons.recipes import RecipeOptions, compare_recipes, models_of, require_seeds
    from groundup.evaluation.tasks import read_task, tasks_identity
    from groundup.hub.resolve import model_identity, run_text

    console = console or Console()
    before, after = models_of(config.before), models_of(config.after)
    require_seeds(before, after)
    tasks = [read_task(path) for path in config.task]
    text = config.text or run_text(before[0]) or run_text(before[0].parent)
    if text is None and not tasks:
        raise ConfigError("nothing to compare on", fix="Give held-out text or a task: --text FILE, or --task FILE.")
    inputs = {f"before {number}": model_identity(path) for number, path in enumerate(before)}
    inputs |= {f"after {number}": model_identity(path) for number, path in enumerate(after)}
    inputs |= {"text": general_text_identity(text)} if text else {}
    inputs |= {"tasks": tasks_identity(tasks)} if tasks else {}
    settings = config.model_dump(mode="json", include={"max_bytes", "dtype"})
    work = begin(config.out, "compare-recipes", settings, inputs, console=console)
    if work.state == "done":
        return show_result(console, work.directory, read(work.directory))
    options = RecipeOptions(text, config.max_bytes, tasks, config.dtype, config.device)
    found = compare_recipes(before, after, options, console)
    for note in found.notes:
        console.note(note)
    files = write_comparison(work.directory, found, f"{len(before)} models before, {len(after)} models after")
    facts = result_facts(found.sentence, "Recipes (95 % intervals over seeds)", COLUMNS, found.rows())
    return show_result(console, work.directory, work.finish(facts | found.to_json(), files))
