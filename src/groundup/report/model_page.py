"""The page of a run: what was built, from what, and how good it is."""

from __future__ import annotations

from groundup.report.page import Section, document
from groundup.report.record import RunRecord
from groundup.report.sections.ability import ability
from groundup.report.sections.cost import cost
from groundup.report.sections.materials import materials
from groundup.report.sections.samples import samples
from groundup.report.sections.training import training
from groundup.report.sections.verdict import headline_figures, sentences

_SECTIONS = (
    ("made-of", "What it is made of", materials),
    ("learned", "How it learned", training),
    ("can-do", "What it can do", ability),
    ("samples", "In its own words", samples),
    ("cost", "What it cost", cost),
)


def render(run: RunRecord) -> str:
    """The whole document. Sections whose stages have not run are left out."""
    return document(
        over="groundup · a model, from the ground up",
        title=run.name,
        lead=sentences(run),
        figures=headline_figures(run),
        sections=[Section(key, title, make(run)) for key, title, make in _SECTIONS],
        foot="Made by groundup from the records that its stages left in this directory.",
    )
