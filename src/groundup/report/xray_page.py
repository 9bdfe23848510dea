"""The page of what a model will be trained on: conversations or texts, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.core.artifact import Artifact, record
from groundup.core.console import Console
from groundup.core.files import atomic_file
from groundup.data.xray import TEMPLATE, Piece, TokenView, role_table
from groundup.report import html
from groundup.report.html import Html, tag
from groundup.report.page import Figure, Section, document
from groundup.report.words import count, percent

NUM_SHOWN = 40  # examples on the page
_TITLE_CHARACTERS = 60


def write_xray(path: Path, told: str, seen: Sequence[TokenView], labels: Sequence[str] = ()) -> Path:
    """Write the page, and return its path; see `render_xray`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(render_xray("What is trained", told, seen, labels), encoding="utf-8")
    return path


def xray_only(
    out: Path,
    stage: str,
    keys: Mapping[str, Any],
    told: str,
    seen: Sequence[TokenView],
    console: Console,
    labels: Sequence[str] = (),
) -> Artifact:
    """Write the page next to the output directory of a run that is not trained now, and print its path."""
    path = write_xray(out.with_name(f"{out.name}.xray.html"), told, seen, labels)
    console.note(f"{path}: what would be trained. Nothing was: leave --xray out to train.")
    return record(stage, keys, {}, path.parent, [path], {"summary": "shown, not trained"}, 0.0)


def render_xray(name: str, told: str, seen: Sequence[TokenView], labels: Sequence[str] = ()) -> str:
    """The whole document.

    Args:
        name: of the data.
        told: how they were read, in a sentence.
        labels: of each text, where labels and not answers are learned.
    """
    tokens = sum(conversation.counts().total() for conversation in seen)
    trained = sum(conversation.trained for conversation in seen)
    what = "text" if labels else "conversation"
    said = [told, f"Here {'is' if len(seen) == 1 else 'are'} {count(len(seen), what)} of them as the model reads them."]
    if labels:
        said.append("From all of a text the model learns to give its label; no word of it is learned to be written.")
    else:
        said.append(
            "What is coloured is learned: the assistant's words, and the ends of its turns. All else is only read. "
            "What has a frame is a special token; the same characters in a message are plain text."
        )
    columns, rows = role_table(seen)
    if labels:
        columns, rows = columns[:2], [row[:2] for row in rows]
    figures = [Figure(f"{what.capitalize()}s shown", f"{len(seen):,}"), Figure("Tokens", f"{tokens:,}")]
    if not labels:
        figures.append(Figure("Trained", f"{trained:,}", percent(trained / tokens) if tokens else ""))
    return document(
        over="groundup · what is trained",
        title=name if len(name) <= _TITLE_CHARACTERS else f"{name[: _TITLE_CHARACTERS - 1]}…",
        lead=said,
        figures=figures,
        sections=[
            Section("counts", "Tokens", [html.table("Tokens by role", columns, rows, figures=len(columns) - 1)]),
            Section(f"{what}s", f"{what.capitalize()}s", [_shown(n, it, labels) for n, it in enumerate(seen)]),
        ],
        foot="Made by groundup before training, with the encoder that training uses.",
        script=False,
    )


def _shown(number: int, seen: TokenView, labels: Sequence[str]) -> Html:
    title = f"{number + 1}: {count(seen.counts().total(), 'token')}"
    title += f", label {labels[number]}" if labels else f", {seen.trained:,} trained"
    if seen.cut:
        title += f"; {count(seen.cut, 'token')} at its end cut off"
    tokens = tag("div", [_token(piece) for piece in seen.pieces], class_="tokens", dir="auto")
    return tag("figure", tag("figcaption", tag("strong", title)), tokens)


def _token(piece: Piece) -> Html:
    kinds = {"learned": piece.trained, "frame": piece.role is None, "special": piece.special}
    ids = ", ".join(map(str, piece.ids))
    named = " ".join(kind for kind, holds in kinds.items() if holds)
    return tag("span", piece.text, class_=named or None, title=f"{ids} · {piece.role or TEMPLATE}")
