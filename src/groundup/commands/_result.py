"""The result that a stage prints, also when it was already finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from groundup.core.artifact import ARTIFACT, Artifact, Work, read
from groundup.core.config import Config
from groundup.core.console import Console

ConfigT = TypeVar("ConfigT", bound=Config)


def result_facts(
    summary: str, title: str = "", columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> dict[str, Any]:
    """Return facts for `show_result`.

    Args:
        summary: One sentence.
        title: Title of the table.
        columns: Columns of the table.
        rows: Rows of the table. Without rows, there is no table.
    """
    table = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
    return {"summary": summary, **({"table": table} if rows else {})}


def show_result(console: Console, directory: Path, made: Artifact) -> Artifact:
    """Print the summary and the table of a stage.

    Args:
        console: Console.
        directory: Output directory.
        made: Artifact of the stage.

    Returns:
        The artifact.
    """
    if table := made.facts.get("table"):
        console.table(table["title"], table["columns"], table["rows"])
    console.note(f"{directory}: {made.facts.get('summary', 'finished')}")
    return made


def report_directory(model: Path, directory: Path, data: Sequence[Path]) -> Path:
    """Return the default directory of a report, which is next to the model.

    Args:
        model: Path of the model or of its run, as the user gave it.
        directory: Directory of the model.
        data: Files or folders of data, or tasks. The names of the first three are parts of the name of the directory.
    """
    base = not (directory / ARTIFACT).is_file() or read(directory).stage == "pretrain"
    names = [path.name if path.is_dir() else path.stem for path in data[:3]]
    parts = ["report", *([] if base else [directory.name]), *names]
    return (model if directory != model else directory.resolve().parent) / "-".join(parts)


def with_work_directory(config: ConfigT, work: Work) -> ConfigT:
    """Return the config with the working directory as its `out`, see `groundup.core.artifact.begin`.

    Args:
        config: Config of the stage.
        work: Work of the stage.
    """
    return config.model_copy(update={"out": work.directory})
