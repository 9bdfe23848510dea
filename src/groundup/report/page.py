"""The page: one HTML document that needs nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from groundup.report.html import Child, Html, join, tag


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with its own heading. One without parts is left out.

    Attributes:
        key: its anchor, unique in the page.
    """

    key: str
    title: str
    parts: Sequence[Child]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that people ask for first."""

    name: str
    value: str
    unit: str = ""


def document(
    *,
    over: str,
    title: str,
    lead: Sequence[str],
    figures: Sequence[Figure],
    sections: Sequence[Section],
    foot: str,
    script: bool = True,
) -> str:
    """The whole document.

    Args:
        over: what kind of page this is, above its title.
        lead: sentences that say all in short.
        script: with the reading of charts.
    """
    filled = [section for section in sections if any(part is not None for part in section.parts)]
    links = [tag("li", tag("a", section.title, href=f"#{section.key}")) for section in filled]
    tiles = [tag("div", tag("dt", f.name), tag("dd", f.value, tag("span", f.unit))) for f in figures]
    body = tag(
        "body",
        tag("a", "To the text", href="#verdict", class_="skip"),
        tag(
            "header",
            tag("p", over, class_="over"),
            tag("h1", title),
            tag(
                "div",
                tag("div", [tag("p", said) for said in lead], class_="lead"),
                tag("dl", tiles, class_="tiles"),
                id="verdict",
            ),
            tag("nav", tag("ol", links), aria_label="Sections"),
        ),
        tag("main", [_section(section) for section in filled]),
        tag("footer", tag("p", foot)),
        [tag("p", id="reading", role="status", hidden=True), _inline("script", "page.js")] if script else None,
    )
    head = _head(f"{title} · groundup", " ".join(lead), script=script)
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en').markup}\n"


def _section(section: Section) -> Html:
    heading = f"{section.key}-heading"
    return tag(
        "section",
        tag("h2", section.title, id=heading),
        tag("div", section.parts),
        id=section.key,
        aria_labelledby=heading,
    )


def content_policy(*, script: bool) -> str:
    """The Content-Security-Policy of a page: nothing is loaded, sent or run but the texts whose digests stand in it."""
    scripts = f"script-src '{_source_hash('page.js')}'; " if script else ""
    return f"default-src 'none'; style-src '{_source_hash('page.css')}'; {scripts}base-uri 'none'; form-action 'none'"


def _head(title: str, description: str, *, script: bool) -> Html:
    policy = content_policy(script=script)
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="description", content=description),
        tag("title", title),
        _inline("style", "page.css"),
    )


def _inline(element: str, file: str) -> Html:
    # The house's own text: escaping would change it, and the browser reads none of it as markup.
    return join(Html(f"<{element}>{_text(file)}</{element}>"))


def _text(file: str) -> str:
    return files("groundup.report").joinpath(file).read_text(encoding="utf-8")


def _source_hash(file: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(_text(file).encode()).digest()).decode()
