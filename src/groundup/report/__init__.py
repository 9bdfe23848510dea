"""The pages: a finished run, and a corpus, each as one self-contained HTML file. No torch here."""

from groundup.report.card_page import render_card
from groundup.report.model_page import render
from groundup.report.record import RunRecord, read_run

__all__ = ["RunRecord", "read_run", "render", "render_card"]
