"""HTML reports of runs and corpora. Each report is one self-contained file. This package does not import torch."""

from groundup.report.card_page import render_card
from groundup.report.model_page import render
from groundup.report.record import RunRecord, read_run

__all__ = ["RunRecord", "read_run", "render", "render_card"]
