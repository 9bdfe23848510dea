"""Common structure of all report pages. A page is one HTML document that does not load external resources."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from groundup.report.html import Child, Html, join, tag


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a page. The section is omitted if all of its parts are None.

    Attributes:
        key: Id of the section element. Links use this id, which must be unique in the page.
        title: Heading of the section.
        parts: Content of the section.
    """

    key: str
    title: str
    parts: Sequence[Child]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number in the summary at the top of a page, with its name and unit."""

    name: str
    value: str
    unit: str = ""


def document(
    *,
    kind: str,
    title: str,
    summary: Sequence[str],
    metrics: Sequence[Metric],
    sections: Sequence[Section],
    footer: str,
    script: bool = True,
) -> str:
    """Render a page.

    Args:
        kind: Kind of the page, which is printed above the title.
        title: Title of the page.
        summary: Sentences of the summary at the top of the page.
        metrics: Numbers in the summary at the top of the page.
        sections: Sections of the page in order. Empty sections are omitted.
        footer: Text of the footer.
        script: Whether to include the script that shows the value of a chart at the pointer.
    """
    filled = [section for section in sections if any(part is not None for part in section.parts)]
    links = [tag("li", tag("a", section.title, href=f"#{section.key}")) for section in filled]
    tiles = [tag("div", tag("dt", f.name), tag("dd", f.value, tag("span", f.unit))) for f in metrics]
    body = tag(
        "body",
        tag("a", "Skip to content", href="#summary", class_="skip"),
        tag(
            "header",
            tag("p", kind, class_="kind"),
            tag("h1", title),
            tag(
                "div",
                tag("div", [tag("p", sentence) for sentence in summary], class_="lead"),
                tag("dl", tiles, class_="tiles"),
                id="summary",
            ),
            tag("nav", tag("ol", links), aria_label="Sections"),
        ),
        tag("main", [_section(section) for section in filled]),
        tag("footer", tag("p", footer)),
        [tag("p", id="reading", role="status", hidden=True), _inline("script", "page.js")] if script else None,
    )
    head = _head(f"{title} · groundup", " ".join(summary), script=script)
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
    """Return the Content-Security-Policy of a page.

    The policy allows only the style sheet and the script of this package, which are identified by their hashes.
    """
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
    # The file is part of this package, so its content is not escaped. Browsers do not parse style sheets and scripts as
    # markup.
    return join(Html(f"<{element}>{_text(file)}</{element}>"))


def _text(file: str) -> str:
    return files("groundup.report").joinpath(file).read_text(encoding="utf-8")


def _source_hash(file: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(_text(file).encode()).digest()).decode()
