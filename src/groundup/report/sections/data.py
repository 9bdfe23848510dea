"""The data section of a run report: sources, filters and tokenizer."""

from __future__ import annotations

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.report.charts import figure
from groundup.report.formatting import approximate, number
from groundup.report.html import Child, tag
from groundup.report.record import TOKENIZE, RunRecord
from groundup.report.sections.funnel import funnel_section
from groundup.report.sections.sources import mixture_section, sources_section


def data_section(run: RunRecord) -> list[Child]:
    """Return the content of the data section, which is empty if the run has neither a corpus nor a tokenizer."""
    card = run.card()
    parts: list[Child] = []
    if card:
        note = tag("p", "Languages, document lengths and full provenance are in corpus/card.html.", class_="note")
        parts += [sources_section(card), mixture_section(card), *funnel_section(card), note]
    tokens = run.stage(TOKENIZE)
    if tokens:
        parts += [tag("h3", "Tokenizer"), *_vocabulary(run, tokens.facts)]
    return parts


def _vocabulary(run: RunRecord, facts: Facts) -> list[Child]:
    bytes_per_token = facts.number("bytes_per_token")
    train, held_out = facts.count("train", "tokens"), facts.count("validation", "tokens")
    summary = (
        "The tokenizer splits text into tokens. A frequent word is one token, and a rare word is several. "
        f"The vocabulary has {facts.count('vocab_size'):,} tokens of {number(bytes_per_token, 2)} bytes on average. "
        f"The training set has {approximate(train)} tokens, and the validation set has {approximate(held_out)}."
    )
    pieces = run.tokenized_example()
    parts: list[Child] = [tag("p", summary)]
    if pieces:
        length = len(b"".join(pieces))
        note = f"Start of the first validation document: {format_count(length)} bytes, {len(pieces)} tokens."
        shown = tag("div", [_token(piece, index) for index, piece in enumerate(pieces)], class_="tokens", dir="auto")
        parts.append(figure("Tokenized text", shown, note=note))
    return parts


def _token(piece: bytes, index: int) -> Child:
    """Return the text of a token, or its bytes in hexadecimal if they are not valid UTF-8."""
    try:
        shown = piece.decode()
    except UnicodeDecodeError:
        shown = "".join(f"\\x{byte:02x}" for byte in piece)
    line_break = tag("br") if shown.endswith("\n") else None
    return [tag("span", shown.replace("\n", "↵"), class_=f"t{index % 2}"), line_break]
