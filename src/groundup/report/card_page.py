"""The page of a data card: what is in a corpus, where it came from, what was dropped and why."""

from __future__ import annotations

from typing import Any

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.corpus.funnel import funnel
from groundup.report.page import Figure, Section, document
from groundup.report.sections.funnel import passage
from groundup.report.sections.origins import in_all, mixture_section, sources
from groundup.report.sections.texts import checks, texts
from groundup.report.words import count, listed, percent, shortened, size

_TITLE_CHARACTERS = 80


def render_card(card: dict[str, Any]) -> str:
    """The whole document; what the corpus has not is left out."""
    facts = Facts(card)
    names = [source.words("name") for source in facts.rows("sources")]
    return document(
        over="groundup · a corpus, from the ground up",
        title=shortened(listed(names, 3), _TITLE_CHARACTERS) or "A corpus",
        lead=_lead(facts),
        figures=_figures(facts),
        sections=[
            Section("passage", "What stays, what goes", passage(facts)),
            Section("origins", "Where it comes from", [sources(facts), mixture_section(facts)]),
            Section("texts", "What the text is like", texts(facts)),
            Section("checks", "What was looked for", checks(facts)),
        ],
        foot="Made by groundup from the counts of collecting; card.json beside this page has them all, and "
        "groundup corpus explain tells the fate of every single document.",
    )


def _lead(card: Facts) -> list[str]:
    found, kept = funnel(card), in_all(card, "documents")
    once = sum(source.count("documents") for source in card.rows("sources"))
    said = (
        f"This corpus has {count(kept, 'document')}, {size(in_all(card, 'bytes'))} of text, from "
        f"{count(len(card.rows('sources')), 'source')}."
    )
    if kept > once:
        said += f" {count(once, 'document')} of them are different: a mixture reads some of them more than once."
    passed = (
        f"Of {count(found.documents, 'document')} that were found, {percent(once / (found.documents or 1))} passed."
    )
    return [said, passed]


def _figures(card: Facts) -> list[Figure]:
    found = funnel(card)
    once = sum(source.count("documents") for source in card.rows("sources"))
    spoken = {code for source in card.rows("sources") for code, _ in source.items("languages") if code != "und"}
    hidden = sum(counts.count() for source in card.rows("sources") for _, counts in source.items("masked"))
    figures = [
        Figure("Documents", format_count(in_all(card, "documents"))),
        Figure("Text", size(in_all(card, "bytes"))),
        Figure("Held out", size(card.count("validation", "bytes"))),
        Figure("Passed", percent(once / (found.documents or 1), 0), "of what was found"),
        Figure("Languages", f"{len(spoken):,}") if spoken else None,
        Figure("Masked", format_count(hidden), "secrets and personal data") if hidden else None,
    ]
    return [figure for figure in figures if figure]
