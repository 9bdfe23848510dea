"""The sources section of a data card: text per genre, licenses, provenance and mixture."""

from __future__ import annotations

from collections import Counter

from groundup.core.facts import Facts
from groundup.core.plural import pluralize
from groundup.report.charts import Bar, draw_bar_chart, figure
from groundup.report.formatting import join_names, number, percent, size, truncate
from groundup.report.html import Child, Html, details, join, table, tag

_MAX_SOURCES = 40


def total_of(card: Facts, key: str) -> int:
    """Return the number of documents or bytes of the training set plus the validation set.

    Args:
        card: Data card.
        key: "documents" or "bytes".
    """
    return sum(card.count(split, key) for split in ("train", "validation"))


def sources_section(card: Facts) -> Html:
    """Return the chart of genres, the table of sources, and the provenance of the sources."""
    found = _largest_first(card)
    genres: Counter[str] = Counter()
    for source in found:
        genres[source.words("genre") or "other"] += source.count("bytes")
    # This total counts each document once, even if a mixture repeats the document.
    total = sum(genres.values())
    held_out = card.count("validation", "bytes")
    intro = (
        f"{size(total_of(card, 'bytes') or total)} of text from {pluralize(len(found), 'source')}. The validation set "
        f"has {size(held_out)} ({pluralize(card.count('validation', 'documents'), 'document')}, selected by hash)."
    )
    rows = [
        Bar(genre, f"{size(amount)} · {percent(amount / (total or 1), 0)}", amount)
        for genre, amount in genres.most_common(12)
    ]
    title = "Text by genre"
    description = f"Bar chart of the bytes per genre: {join_names([row.label for row in rows])}."
    drawn = draw_bar_chart("genres", title, description, rows)
    data = table(title, ("genre", "bytes"), [(row.label, f"{genres[row.label]:,}") for row in rows], num_numeric=1)
    columns = ("source", "license", "origin", "documents", "text", "dropped")
    lines = [_row(source) for source in found[:_MAX_SOURCES]]
    return join(
        tag("p", intro),
        figure(title, drawn, data=data) if len(genres) > 1 else None,
        tag("h3", "Sources and licenses"),
        table("Sources of the corpus", columns, lines, num_numeric=3),
        _more(len(found) - _MAX_SOURCES),
        _provenance(found[:_MAX_SOURCES]),
    )


def _largest_first(card: Facts) -> list[Facts]:
    return sorted(card.rows("sources"), key=lambda source: -source.count("bytes"))


def _more(count_: int) -> Html | None:
    return (
        tag("p", f"{pluralize(count_, 'smaller source')} not shown; see card.json.", class_="note")
        if count_ > 0
        else None
    )


def _row(source: Facts) -> list[Child]:
    dropped = sum(drop.count("documents") for _, drop in source.items("drops"))
    # The first provenance entry is the package or the directory. The provenance table contains all entries.
    origin = next((value.words() for _, value in source.items("provenance")), "")
    genre = source.words("genre")
    return [
        [source.words("name"), tag("small", genre) if genre else None],
        source.words("license") or "not specified",
        truncate(origin, 60),
        f"{source.count('documents'):,}",
        size(source.count("bytes")),
        f"{dropped:,}",
    ]


def _provenance(found: list[Facts]) -> Html:
    """Return a table of all provenance entries of each source."""
    rows: list[list[Child]] = [
        [source.words("name"), key, tag("span", truncate(value, 400), class_="untrusted")]
        for source in found
        for key, value in _entries(source)
        if value
    ]
    return details("Full provenance", table("Provenance", ("source", "", ""), rows))


def _entries(source: Facts) -> list[tuple[str, str]]:
    entries = [(key, value.words()) for key, value in source.items("provenance")]
    first, last = source.words("dates", 0), source.words("dates", 1)
    entries.append(("dates", first if first == last else f"{first} to {last}"))
    fields = [f"{{{path}}} ({pluralize(records.count(), 'record')})" for path, records in source.items("fields")]
    return [*entries, ("text fields", join_names(fields, 3)), ("files", f"{source.count('files'):,}")]


def mixture_section(card: Facts) -> Html | None:
    """Return a chart of the epochs and the fraction of each source, or None if the corpus is not a mixture."""
    found = [source for source in _largest_first(card) if source.at("mixture")]
    if not found:
        return None
    read = [max(0.0, (source.number("mixture", "epochs") or 0.0) * source.count("bytes")) for source in found]
    total = sum(read) or 1.0
    pairs = sorted(zip(found, read, strict=True), key=lambda pair: -pair[1])[:_MAX_SOURCES]
    rows = [
        Bar(source.words("name"), f"{percent(amount / total)} · {_epochs(source)}", amount) for source, amount in pairs
    ]
    title = "Mixture"
    shares = "; ".join(f"{row.label} {row.shown}" for row in rows)
    description = f"Bar chart of the fraction of each source: {shares}."
    lines: list[list[Child]] = [
        [
            source.words("name"),
            percent(source.number("mixture", "wanted") or 0.0),
            percent(amount / total),
            _epochs(source) + (", the maximum" if source.at("mixture", "limited") is True else ""),
        ]
        for source, amount in pairs
    ]
    limited = [source.words("name") for source, _ in pairs if source.at("mixture", "limited") is True]
    note = "The fraction of the training set that each source contributes, and the number of epochs over the source."
    if limited:
        note += f" max_epochs limits {join_names(limited)}."
    data = table(title, ("source", "requested", "actual", "epochs"), lines, num_numeric=3)
    return join(
        figure(title, draw_bar_chart("mixture", title, description, rows), note=note, data=data),
        _more(len(found) - _MAX_SOURCES),
    )


def _epochs(source: Facts) -> str:
    return f"{number(source.number('mixture', 'epochs'), 2)} epochs"
