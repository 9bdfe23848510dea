"""The page: one HTML document that needs nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from groundup.report.html import Child, Html, join, tag
from groundup.report.record import RunRecord
from groundup.report.sections.ability import ability
from groundup.report.sections.cost import cost
from groundup.report.sections.materials import materials
from groundup.report.sections.samples import samples
from groundup.report.sections.training import training
from groundup.report.sections.verdict import sentences, verdict

_SECTIONS = (
    ("made-of", "What it is made of", materials),
    ("learned", "How it learned", training),
    ("can-do", "What it can do", ability),
    ("samples", "In its own words", samples),
    ("cost", "What it cost", cost),
)


def render(run: RunRecord) -> str:
    """The whole document. Sections whose stages have not run are left out."""
    filled = [(key, title, parts) for key, title, make in _SECTIONS if (parts := make(run))]
    links = [tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in filled]
    body = tag(
        "body",
        tag("a", "To the text", href="#verdict", class_="skip"),
        tag(
            "header",
            tag("p", "groundup · a model, from the ground up", class_="over"),
            tag("h1", run.name),
            tag("div", verdict(run), id="verdict"),
            tag("nav", tag("ol", links), aria_label="Sections"),
        ),
        tag("main", [_section(key, title, parts) for key, title, parts in filled]),
        tag("footer", tag("p", "Made by groundup from the records that its stages left in this directory.")),
        tag("p", id="reading", role="status", hidden=True),
        _inline("script", "page.js"),
    )
    return f"<!DOCTYPE html>\n{tag('html', _head(run), body, lang='en').markup}\n"


def _section(key: str, title: str, parts: list[Child]) -> Html:
    return tag(
        "section", tag("h2", title, id=f"{key}-heading"), tag("div", parts), id=key, aria_labelledby=f"{key}-heading"
    )


def _head(run: RunRecord) -> Html:
    # Nothing may be loaded, sent or run but the two texts whose digests stand here.
    policy = (
        f"default-src 'none'; style-src '{_source_hash('page.css')}'; script-src '{_source_hash('page.js')}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="description", content=" ".join(sentences(run))),
        tag("title", f"{run.name} · groundup"),
        _inline("style", "page.css"),
    )


def _inline(element: str, file: str) -> Html:
    # The house's own text: escaping would change it, and the browser reads none of it as markup.
    return join(Html(f"<{element}>{_text(file)}</{element}>"))


def _text(file: str) -> str:
    return files("groundup.report").joinpath(file).read_text(encoding="utf-8")


def _source_hash(file: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(_text(file).encode()).digest()).decode()
