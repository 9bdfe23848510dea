"""Where a corpus came from, and how much of each source is read: sections of a data card alone."""

from __future__ import annotations

from collections import Counter

from groundup.core.facts import Facts
from groundup.report.charts import Bar, draw_bar_chart, figure
from groundup.report.html import Child, Html, folded, join, table, tag
from groundup.report.words import count, listed, number, percent, shortened, size

_MOST_SOURCES = 40


def in_all(card: Facts, key: str) -> int:
    """Documents, or bytes, to train on and held out."""
    return sum(card.count(split, key) for split in ("train", "validation"))


def sources(card: Facts) -> Html:
    """What kinds of text there are, the sources with licence and origin, and what is held out."""
    found = _largest_first(card)
    genres: Counter[str] = Counter()
    for source in found:
        genres[source.words("genre") or "other"] += source.count("bytes")
    # Of a mixture, what is there once: a kind of text does not become larger by being read twice.
    whole = sum(genres.values())
    held_out = card.count("validation", "bytes")
    intro = (
        f"{size(in_all(card, 'bytes') or whole)} of text from {count(len(found), 'source')}; {size(held_out)} of it "
        f"({count(card.count('validation', 'documents'), 'document')}, chosen by hash) was held out, so that a model "
        "can be measured on what it has not read."
    )
    rows = [
        Bar(genre, f"{size(amount)} · {percent(amount / (whole or 1), 0)}", amount)
        for genre, amount in genres.most_common(12)
    ]
    title = "The text, by kind"
    drawn = draw_bar_chart(
        "genres", title, f"Bars: bytes of text of each kind. {listed([row.label for row in rows])}.", rows
    )
    sheet = table(title, ("kind of text", "bytes"), [(row.label, f"{genres[row.label]:,}") for row in rows], figures=1)
    columns = ("source", "licence", "where it came from", "documents", "text", "dropped")
    lines = [_row(source) for source in found[:_MOST_SOURCES]]
    return join(
        tag("p", intro),
        figure(title, drawn, figures=sheet) if len(genres) > 1 else None,
        tag("h3", "The sources and their licences"),
        table("Sources of the corpus", columns, lines, figures=3),
        _more(len(found) - _MOST_SOURCES),
        _provenance(found[:_MOST_SOURCES]),
    )


def _largest_first(card: Facts) -> list[Facts]:
    return sorted(card.rows("sources"), key=lambda source: -source.count("bytes"))


def _more(count_: int) -> Html | None:
    return (
        tag("p", f"and {count(count_, 'smaller source')} more: see card.json.", class_="note") if count_ > 0 else None
    )


def _row(source: Facts) -> list[Child]:
    dropped = sum(drop.count("documents") for _, drop in source.items("drops"))
    # The first line of the provenance names the package or the folder; archive and digest are folded away below.
    origin = next((value.words() for _, value in source.items("provenance")), "")
    genre = source.words("genre")
    return [
        [source.words("name"), tag("small", genre) if genre else None],
        source.words("license") or "not given",
        shortened(origin, 60),
        f"{source.count('documents'):,}",
        size(source.count("bytes")),
        f"{dropped:,}",
    ]


def _provenance(found: list[Facts]) -> Html:
    """All that is known of where each source came from."""
    rows: list[list[Child]] = [
        [source.words("name"), key, tag("span", shortened(value, 400), class_="foreign")]
        for source in found
        for key, value in _told(source)
        if value
    ]
    return folded("Provenance in full", table("Provenance", ("source", "", ""), rows))


def _told(source: Facts) -> list[tuple[str, str]]:
    told = [(key, value.words()) for key, value in source.items("provenance")]
    first, last = source.words("dates", 0), source.words("dates", 1)
    told.append(("dates", first if first == last else f"{first} to {last}"))
    fields = [f"{{{path}}} ({count(records.count(), 'record')})" for path, records in source.items("fields")]
    return [*told, ("text taken from", listed(fields, 3)), ("files", f"{source.count('files'):,}")]


def mixture_section(card: Facts) -> Html | None:
    """How often each source is read, and what share of the whole that makes; None without a mixture."""
    found = [source for source in _largest_first(card) if source.at("mixture")]
    if not found:
        return None
    read = [max(0.0, (source.number("mixture", "epochs") or 0.0) * source.count("bytes")) for source in found]
    whole = sum(read) or 1.0
    pairs = sorted(zip(found, read, strict=True), key=lambda pair: -pair[1])[:_MOST_SOURCES]
    rows = [
        Bar(source.words("name"), f"{percent(amount / whole)} · {_epochs(source)}", amount) for source, amount in pairs
    ]
    title = "The mixture"
    description = f"Bars: the share of each source. {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    lines: list[list[Child]] = [
        [
            source.words("name"),
            percent(source.number("mixture", "wanted") or 0.0),
            percent(amount / whole),
            _epochs(source) + (", the limit" if source.at("mixture", "limited") is True else ""),
        ]
        for source, amount in pairs
    ]
    limited = [source.words("name") for source, _ in pairs if source.at("mixture", "limited") is True]
    note = "How much of the text to train on is of each source, and how often its documents are read."
    if limited:
        note += f" {listed(limited)} would have to be read more often than max_epochs allows."
    sheet = table(title, ("source", "wanted", "got", "read"), lines, figures=3)
    return join(
        figure(title, draw_bar_chart("mixture", title, description, rows), note=note, figures=sheet),
        _more(len(found) - _MOST_SOURCES),
    )


def _epochs(source: Facts) -> str:
    return f"{number(source.number('mixture', 'epochs'), 2)} times"
