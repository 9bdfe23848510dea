"""`groundup report`: summarize a run in one self-contained HTML page, `report.html`."""

from __future__ import annotations

from pathlib import Path

from groundup.core.artifact import Artifact, begin, read, require_intact
from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count
from groundup.core.errors import ConfigError

PAGE = "report.html"

EXAMPLE = "groundup report runs/quickstart"


class ReportConfig(Config):
    """Settings of the report. A recipe sets only `out`; the command line needs only `run`."""

    run: Path | None = setting(None, help="run directory, such as runs/quickstart", positional=True)
    out: Path | None = setting(None, help="output directory for report.html; default: the run directory", flag=True)


def run(config: ReportConfig, *, console: Console | None = None) -> Artifact:
    """Write `report.html`, unless it is up to date.

    Args:
        config: The run and the output directory.
        console: Receives the path of the report.

    Returns:
        The artifact in the output directory; its inputs are the digests of all stages' records.

    Raises:
        ConfigError: Neither `run` nor `out` is set.
        DataError: The run has no finished stage.
        FormatError: A damaged record or output file.
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
    for output in record.outputs:  # a report would silently omit missing files
        require_intact(output.directory, missing_ok=True)
    page = out / PAGE
    # A new release can render the same records differently.
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
