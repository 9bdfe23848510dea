"""The report page: a finished run as one self-contained HTML file. No torch here."""

from groundup.report.page import render
from groundup.report.record import RunRecord, read_run

__all__ = ["RunRecord", "read_run", "render"]
