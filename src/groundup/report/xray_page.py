"""HTML page of a Label X-ray, which shows the tokens of training examples and which tokens the loss includes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.artifact import Artifact, record
from groundup.core.console import Console
from groundup.core.files import atomic_file
from groundup.core.plural import pluralize
from groundup.data.xray import TEMPLATE, Piece, TokenView, role_table
from groundup.report import html
from groundup.report.formatting import percent
from groundup.report.html import Html, tag
from groundup.report.page import Metric, Section, document

if TYPE_CHECKING:
    from groundup.train.classifier_plan import ClassifierSettings

NUM_SHOWN = 40  # Number of examples on the page.
_MAX_TITLE_CHARS = 60


def write_xray(path: Path, description: str, seen: Sequence[TokenView], labels: Sequence[str] = ()) -> Path:
    """Write a Label X-ray as an HTML file, and return the path of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(render_xray("Label X-ray", description, seen, labels), encoding="utf-8")
    return path


def xray_only(
    out: Path,
    stage: str,
    keys: Mapping[str, Any],
    description: str,
    seen: Sequence[TokenView],
    console: Console,
    labels: Sequence[str] = (),
) -> Artifact:
    """Write a Label X-ray next to the output directory, and print the path of the file. No model is trained."""
    path = write_xray(out.with_name(f"{out.name}.xray.html"), description, seen, labels)
    console.note(f"Label X-ray: {path}. No model was trained; run without --xray to train.")
    return record(stage, keys, {}, path.parent, [path], {"summary": "Label X-ray without training"}, 0.0)


def classifier_xray(settings: ClassifierSettings, keys: Mapping[str, Any], console: Console) -> Artifact:
    """Print labeled training texts and write them to a Label X-ray, without training.

    Args:
        settings: Settings of `groundup finetune classify`.
        keys: Settings that are recorded.
        console: Console to print to.
    """
    from groundup.hub import read_config
    from groundup.hub.resolve import load_tokenizer, resolve_model
    from groundup.inference.classification import show_texts
    from groundup.train.initial_head import PROMPT_AFTER, PROMPT_BEFORE, PromptFormats

    directory = resolve_model(settings.model)
    tokenizer, context = load_tokenizer(directory), read_config(directory).context_length
    formats = PromptFormats.for_context(tokenizer, context, settings.max_tokens)
    train, _ = settings.read(formats.tokenizers[0], formats.max_tokens, settings.seed, console)
    seen, labels = show_texts(tokenizer, train, formats.max_tokens, console, max_shown=3)
    summary = (
        f"Read {train.columns}, {pluralize(len(train.counts()), 'label')}, {pluralize(len(train), 'training text')}."
    )
    if len(formats) > 1:
        summary += f" Before step 1, training compares the prompt {PROMPT_BEFORE}...{PROMPT_AFTER} with the text alone."
    return xray_only(settings.out, "finetune.classify", keys, summary, seen, console, labels)


def render_xray(name: str, description: str, seen: Sequence[TokenView], labels: Sequence[str] = ()) -> str:
    """Render a Label X-ray as HTML.

    Args:
        name: Title of the page.
        description: A sentence that describes how the data was read.
        seen: Training examples with their tokens.
        labels: Label of each example if a classifier is trained. The list is empty for instruction tuning.
    """
    tokens = sum(conversation.counts().total() for conversation in seen)
    trained = sum(conversation.trained for conversation in seen)
    noun = "text" if labels else "conversation"
    summary = [description, f"This page shows the tokens of {pluralize(len(seen), noun)}."]
    if labels:
        summary.append("The loss is computed on the label only. The tokens of the text are input.")
    else:
        summary.append(
            "The loss includes the colored tokens, which are the assistant's messages and their end-of-turn tokens. "
            "All other tokens are masked. Special tokens have a frame. If a message contains the same characters as a "
            "special token, they are ordinary text."
        )
    columns, rows = role_table(seen)
    if labels:
        columns, rows = columns[:2], [row[:2] for row in rows]
    metrics = [Metric(f"{noun.capitalize()}s shown", f"{len(seen):,}"), Metric("Tokens", f"{tokens:,}")]
    if not labels:
        metrics.append(Metric("In the loss", f"{trained:,}", percent(trained / tokens) if tokens else ""))
    return document(
        kind="groundup · Label X-ray",
        title=name if len(name) <= _MAX_TITLE_CHARS else f"{name[: _MAX_TITLE_CHARS - 1]}…",
        summary=summary,
        metrics=metrics,
        sections=[
            Section("counts", "Tokens", [html.table("Tokens by role", columns, rows, num_numeric=len(columns) - 1)]),
            Section(f"{noun}s", f"{noun.capitalize()}s", [_example(n, it, labels) for n, it in enumerate(seen)]),
        ],
        footer="This page was generated by groundup before training. Training uses the same tokenization.",
        script=False,
    )


def _example(number: int, seen: TokenView, labels: Sequence[str]) -> Html:
    title = f"{number + 1}: {pluralize(seen.counts().total(), 'token')}"
    title += f", label {labels[number]}" if labels else f", {seen.trained:,} in the loss"
    if seen.cut:
        title += f"; truncated by {pluralize(seen.cut, 'token')}"
    tokens = tag("div", [_token(piece) for piece in seen.pieces], class_="tokens", dir="auto")
    return tag("figure", tag("figcaption", tag("strong", title)), tokens)


def _token(piece: Piece) -> Html:
    classes = {"trained": piece.trained, "template": piece.role is None, "special": piece.special}
    ids = ", ".join(map(str, piece.ids))
    names = " ".join(name for name, applies in classes.items() if applies)
    return tag("span", piece.text, class_=names or None, title=f"{ids} · {piece.role or TEMPLATE}")
