"""`groundup report`: a run's records to one page that anybody can open, `report.html` in the run's directory."""

from __future__ import annotations

from pathlib import Path

from groundup.core.artifact import Artifact, begin, read, require_intact
from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count
from groundup.core.errors import ConfigError

PAGE = "report.html"

EXAMPLE = "groundup report runs/quickstart"


class ReportConfig(Config):
    """Which run. One of the two is enough: a recipe's run sets `out` alone, a person gives the run alone."""

    run: Path | None = setting(None, help="a run's directory, e.g. runs/quickstart", positional=True)
    out: Path | None = setting(None, help="directory for report.html; default: the run's", flag=True)


def run(config: ReportConfig, *, console: Console | None = None) -> Artifact:
    """Leave `report.html`; one that tells about just these records stays as it is.

    Its artifact lies beside it, in the run's own directory: it names the digests of all stages' records.

    Raises:
        ConfigError: no run is given.
        DataError: nothing there to report.
        FormatError: a record or a file of an output is damaged.
    """
    from groundup import __version__
    from groundup.core.files import atomic_file
    from groundup.report import read_run, render

    console = console or Console()
    directory, out = config.run or config.out, config.out or config.run
    if directory is None or out is None:
        rule, fix = "a report is about a run", "Give its directory: groundup report runs/quickstart."
        raise ConfigError("no RUN", rule=rule, fix=fix)
    record = read_run(directory)
    for output in record.outputs:  # a page with less is drawn of a run without some of its files
        require_intact(output.directory, missing_ok=True)
    page = out / PAGE
    # Another release may draw another page of the same records.
    work = begin(out, "report", {"version": __version__}, record.digests, shared=True)
    if work.state == "done":
        made = read(out)
    else:
        with atomic_file(page) as temporary:
            temporary.write_text(render(record), encoding="utf-8")
        made = work.finish(
            {"bytes": page.stat().st_size, "stages": [output.stage for output in record.outputs]}, [page]
        )
    console.note(f"The report: {page.resolve().as_uri()} ({format_count(page.stat().st_size, 'bytes')})")
    return made
