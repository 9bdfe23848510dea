"""The last words of a stage, from what it left in its facts: the same when it worked and when it was done before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from groundup.core.artifact import Artifact, Work
from groundup.core.config import Config
from groundup.core.console import Console

ConfigT = TypeVar("ConfigT", bound=Config)


def result_facts(
    summary: str, title: str = "", columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> dict[str, Any]:
    """Facts that `show_result` tells: one sentence, and the table that it sums up where there is one."""
    table = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
    return {"summary": summary, **({"table": table} if rows else {})}


def show_result(console: Console, directory: Path, made: Artifact) -> Artifact:
    """Show what a stage found, and where it lies; returns its artifact."""
    if table := made.facts.get("table"):
        console.table(table["title"], table["columns"], table["rows"])
    console.note(f"{directory}: {made.facts.get('summary', 'finished')}")
    return made


def with_work_directory(config: ConfigT, work: Work) -> ConfigT:
    """Return the config with the directory that this run writes to as its `out`; see `groundup.core.artifact.begin`."""
    return config.model_copy(update={"out": work.directory})
