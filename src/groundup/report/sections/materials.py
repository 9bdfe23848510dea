"""What the model was made of: the sources, what was dropped and why, and the vocabulary."""

from __future__ import annotations

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.report.charts import figure
from groundup.report.html import Child, tag
from groundup.report.record import TOKENIZE, RunRecord
from groundup.report.sections.funnel import passage
from groundup.report.sections.origins import mixture_section, sources
from groundup.report.words import large, number


def materials(run: RunRecord) -> list[Child]:
    """The parts of the section; none without a corpus and without tokens."""
    card = run.card()
    parts: list[Child] = []
    if card:
        note = tag("p", "Languages, lengths, provenance in full: corpus/card.html.", class_="note")
        parts += [sources(card), mixture_section(card), *passage(card), note]
    tokens = run.stage(TOKENIZE)
    if tokens:
        parts += [tag("h3", "The vocabulary"), *_vocabulary(run, tokens.facts)]
    return parts


def _vocabulary(run: RunRecord, facts: Facts) -> list[Child]:
    bytes_per_token = facts.number("bytes_per_token")
    train, held_out = facts.count("train", "tokens"), facts.count("validation", "tokens")
    said = (
        "A model reads numbers, not letters, so the text was cut into tokens: frequent words are one token each, "
        f"rare ones are put together from pieces. This vocabulary has {facts.count('vocab_size'):,} of them, and one "
        f"stands for {number(bytes_per_token, 2)} bytes on average. There are {large(train)} tokens to train on; "
        f"{large(held_out)} are held out."
    )
    pieces = run.tokenized_example()
    parts: list[Child] = [tag("p", said)]
    if pieces:
        length = len(b"".join(pieces))
        note = f"The beginning of the first held-out document: {format_count(length)} bytes, {len(pieces)} tokens."
        shown = tag("div", [_token(piece, index) for index, piece in enumerate(pieces)], class_="tokens", dir="auto")
        parts.append(figure("A text, cut into tokens", shown, note=note))
    return parts


def _token(piece: bytes, index: int) -> Child:
    """One token: its text, or, where it is a part of a character, its bytes."""
    try:
        shown = piece.decode()
    except UnicodeDecodeError:
        shown = "".join(f"\\x{byte:02x}" for byte in piece)
    ends = tag("br") if shown.endswith("\n") else None
    return [tag("span", shown.replace("\n", "↵"), class_=f"t{index % 2}"), ends]
