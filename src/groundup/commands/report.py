"""`groundup report`: summarize a run in `report.html`, a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from groundup.core.artifact import Artifact, begin, read, require_intact
from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count
from groundup.core.errors import ConfigError

PAGE = "report.html"

EXAMPLE = "groundup report runs/quickstart"


class ReportConfig(Config):
    """Settings of `groundup report`.

    On the command line, only `run` is required. If the report is a stage of a recipe, only `out` is set.
    """

    run: Path | None = setting(None, help="run directory, such as runs/quickstart", positional=True)
    out: Path | None = setting(None, help="output directory for report.html; default: the run directory", flag=True)


def run(config: ReportConfig, *, console: Console | None = None) -> Artifact:
    """Write `report.html`, unless an up-to-date report exists.

    Args:
        config: Settings of the command.
        console: Console on which the path of the report is printed.

    Returns:
        The artifact of the report, whose inputs are the digests of the records of all stages.

    Raises:
        ConfigError: Neither `run` nor `out` is set.
        DataError: The run does not have any finished stage.
        FormatError: A record or an output file is damaged.
    """
    from groundup import __version__
    from groundup.core.files import atomic_file
    from groundup.report import read_run, render

    console = console or Console()
    directory, out = config.run or config.out, config.out or config.run
    if directory is None or out is None:
        fix = "Give a run directory, such as: groundup report runs/quickstart."
        raise ConfigError("RUN", rule="missing argument", fix=fix)
    record = read_run(directory)
    for output in record.outputs:  # raises an error for missing files, which the report would silently omit
        require_intact(output.directory, missing_ok=True)
    page = out / PAGE
    # The version is part of the fingerprint, because a new release may render the same records differently.
    work = begin(out, "report", {"version": __version__}, record.digests, shared=True)
    if work.state == "done":
        made = read(out)
    else:
        with atomic_file(page) as temporary:
            temporary.write_text(render(record), encoding="utf-8")
        made = work.finish(
            {"bytes": page.stat().st_size, "stages": [output.stage for output in record.outputs]}, [page]
        )
    console.note(f"Report: {page.resolve().as_uri()} ({format_count(page.stat().st_size, 'bytes')})")
    return made
