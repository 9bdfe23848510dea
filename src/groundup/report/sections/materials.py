"""What the model was made of: the sources, what was dropped and why, and the vocabulary."""

from __future__ import annotations

from collections import Counter

from groundup.console import format_count
from groundup.report.charts import Bar, bars, figure
from groundup.report.facts import Facts
from groundup.report.html import Child, Html, folded, foreign, join, table, tag
from groundup.report.record import TOKENIZE, RunRecord
from groundup.report.sections.verdict import text_bytes
from groundup.report.words import count, large, listed, number, percent, shortened, size

_MOST_SOURCES = 40
_MOST_REASONS = 7
_MOST_REJECTS = 36
_REJECT_CHARACTERS = 200


def materials(run: RunRecord) -> list[Child]:
    """The parts of the section; none without a corpus and without tokens."""
    card = run.card()
    parts: list[Child] = []
    if card:
        parts += [_sources(run, card), _funnel(card), _rejects(card)]
    tokens = run.stage(TOKENIZE)
    if tokens:
        parts += [tag("h3", "The vocabulary"), *_vocabulary(run, tokens.facts)]
    return parts


def _sources(run: RunRecord, card: Facts) -> Html:
    sources = sorted(card.rows("sources"), key=lambda source: -source.count("bytes"))
    genres: Counter[str] = Counter()
    for source in sources:
        genres[source.words("genre") or "other"] += source.count("bytes")
    whole = text_bytes(run) or sum(genres.values())
    held_out = card.count("validation", "bytes")
    intro = (
        f"{size(whole)} of text from {count(len(sources), 'source')}; {size(held_out)} of it "
        f"({count(card.count('validation', 'documents'), 'document')}, chosen by hash) was held out, so that the model "
        "could be measured on what it has not read."
    )
    rows = [
        Bar(genre, f"{size(amount)} · {percent(amount / (whole or 1), 0)}", amount)
        for genre, amount in genres.most_common(12)
    ]
    title = "The text, by kind"
    drawn = bars("genres", title, f"Bars: bytes of text of each kind. {listed([row.label for row in rows])}.", rows)
    sheet = table(title, ("kind of text", "bytes"), [(row.label, f"{genres[row.label]:,}") for row in rows], figures=1)
    columns = ("source", "licence", "where it came from", "documents", "text", "dropped")
    lines = [_source_row(source) for source in sources[:_MOST_SOURCES]]
    more = len(sources) - _MOST_SOURCES
    note = tag("p", f"{count(more, 'smaller source')} more: see corpus/card.md.", class_="note") if more > 0 else None
    sources_table = table("Sources of the corpus", columns, lines, figures=3)
    chart = figure(title, drawn, figures=sheet)
    return join(tag("p", intro), chart, tag("h3", "The sources and their licences"), sources_table, note)


def _source_row(source: Facts) -> list[Child]:
    dropped = sum(drop.count("documents") for _, drop in source.items("drops"))
    # The first line of the provenance names the package or the folder; archive and digest are in the card.
    origin = next((value.words() for _, value in source.items("provenance")), "")
    genre = source.words("genre")
    return [
        [source.words("name"), tag("small", genre) if genre else None],
        source.words("licence") or "not given",
        shortened(origin, 60),
        f"{source.count('documents'):,}",
        size(source.count("bytes")),
        f"{dropped:,}",
    ]


def _drops(card: Facts) -> list[tuple[str, int, int]]:
    """(reason, documents, bytes) over all sources, the commonest first."""
    documents: Counter[str] = Counter()
    amounts: Counter[str] = Counter()
    for source in card.rows("sources"):
        for reason, drop in source.items("drops"):
            documents[reason] += drop.count("documents")
            amounts[reason] += drop.count("bytes")
    return [(reason, found, amounts[reason]) for reason, found in documents.most_common()]


def _funnel(card: Facts) -> Html | None:
    """From all documents that were read to those that are kept, each reason a step down."""
    drops = _drops(card)
    kept = sum(card.count(split, "documents") for split in ("train", "validation"))
    read = kept + sum(found for _, found, _ in drops)
    if not drops:
        return tag("p", f"All {count(read, 'document')} that were read were kept.")
    steps = [(reason, found) for reason, found, _ in drops[:_MOST_REASONS]]
    if rest := drops[_MOST_REASONS:]:
        steps.append((f"{count(len(rest), 'other reason')}", sum(found for _, found, _ in rest)))
    rows, left = [Bar("read", count(read, "document"), read)], read
    for reason, found in steps:
        left -= found
        rows.append(Bar(reason, f"−{found:,}", found, start=left))
    rows.append(Bar("kept", f"{count(kept, 'document')} · {percent(kept / read, 0)}", kept, accent=True))
    title = "From what was read to what was kept"
    description = (
        f"Of {read:,} documents {kept:,} were kept; each bar between takes away what was dropped for one reason."
    )
    sheet = table(
        title, ("dropped because", "documents", "text"), [(r, f"{n:,}", size(b)) for r, n, b in drops], figures=2
    )
    note = "Documents too short, seen before, or repeating themselves are dropped by rules, and counted."
    return figure(title, bars("funnel", title, description, rows, most=read), note=note, figures=sheet)


def _rejects(card: Facts) -> Html | None:
    """Beginnings of dropped documents, so that the rules can be judged."""
    found = [
        (drop.count("documents"), reason, source.words("name"), sample)
        for source in card.rows("sources")
        for reason, drop in source.items("drops")
        for sample in drop.rows("samples")
        if sample.words(2)
    ]
    if not found:
        return None
    found.sort(key=lambda item: (-item[0], item[1]))
    shown = [
        tag(
            "li",
            tag("p", tag("strong", reason), " · ", name, " · ", shortened(sample.words(1), 80), class_="note"),
            foreign(shortened(sample.words(2), _REJECT_CHARACTERS)),
        )
        for _, reason, name, sample in found[:_MOST_REJECTS]
    ]
    return folded(f"Some of what was dropped ({len(shown)} samples)", tag("ul", shown, class_="rejects"))


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
