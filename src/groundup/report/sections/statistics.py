"""Statistics and checks of a data card: languages, lengths, masking, duplicates and decontamination."""

from __future__ import annotations

from collections import Counter

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.report.charts import Bar, draw_bar_chart, figure
from groundup.report.formatting import count, join_names, percent, size, truncate
from groundup.report.html import Child, Html, details, join, table, tag, untrusted

_MAX_LANGUAGES = 20
_MAX_KINDS = 24
_MAX_ITEMS = 40
_MAX_SAMPLE_CHARS = 100
_NUM_LENGTH_BINS = 21  # powers of two from 1 B to 1 MiB; the last bin has no upper bound


def language_section(card: Facts) -> Html | None:
    """Return bytes and documents per language; None without language identification."""
    found: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for source in card.rows("sources"):
        for language, counts in source.items("languages"):
            documents[language] += counts.count(0)
            found[language] += counts.count(1)
    if not found:
        return None
    total = found.total() or 1
    rows = [
        Bar(_language(code), f"{count(documents[code], 'document')} · {percent(amount / total)}", amount)
        for code, amount in found.most_common(_MAX_LANGUAGES)
    ]
    rest = found.most_common()[_MAX_LANGUAGES:]
    if rest:
        amount = sum(amount for _, amount in rest)
        rows.append(Bar(count(len(rest), "other language"), percent(amount / total), amount))
    title = "Languages"
    description = f"Bars: bytes of text. {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    lines = [(code, f"{documents[code]:,}", size(amount)) for code, amount in found.most_common(_MAX_KINDS * 4)]
    data = table(title, ("ISO 639 code", "documents", "text"), lines, num_numeric=2)
    note = "Kept documents, by bytes of text. The language is identified from the words of each document."
    return figure(title, draw_bar_chart("languages", title, description, rows), note=note, data=data)


def _language(code: str) -> str:
    return "unknown" if code == "und" else code


def lengths(card: Facts) -> Html | None:
    """Return a histogram of document lengths; None without counts."""
    found: Counter[int] = Counter()
    for source in card.rows("sources"):
        for lower, documents in source.items("lengths"):
            if lower.isdecimal() and len(lower) < _NUM_LENGTH_BINS:
                found[min(int(lower).bit_length(), _NUM_LENGTH_BINS)] += documents.count()
    if not found.total():
        return None
    bins = range(min(found), max(found) + 1)  # including empty bins
    rows = [
        Bar(
            _length(power),
            f"{count(found[power], 'document')} · {percent(found[power] / found.total())}",
            found[power],
        )
        for power in bins
    ]
    title = "Document lengths"
    description = f"Bars: documents by bytes of text. {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    data = table(title, ("bytes of text", "documents"), [(_length(p), f"{found[p]:,}") for p in bins], num_numeric=1)
    return figure(title, draw_bar_chart("lengths", title, description, rows), data=data)


def _length(power: int) -> str:
    lower = 1 << max(0, power - 1)
    return f"{_binary(lower)} or more" if power >= _NUM_LENGTH_BINS else f"{_binary(lower)} to {_binary(2 * lower)}"


def _binary(amount: int) -> str:
    for scale, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if amount >= scale:
            return f"{amount // scale} {unit}"
    return f"{amount} B"


def masked(card: Facts) -> Html | None:
    """Return the number of masked values per kind; None without any."""
    found: Counter[str] = Counter()
    for source in card.rows("sources"):
        for kind, counts in source.items("masked"):
            found[kind] += counts.count()
    if not found.total():
        return None
    rows = [Bar(kind, f"{amount:,}", amount) for kind, amount in found.most_common(_MAX_KINDS)]
    title = "Masked values"
    description = f"Bars: number of values. {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    data = table(title, ("kind", "count"), [(row.label, row.shown) for row in rows], num_numeric=1)
    note = "Personal data and secrets are replaced by placeholder tokens such as [EMAIL]."
    return figure(title, draw_bar_chart("masked", title, description, rows), note=note, data=data)


def near_duplicates(card: Facts) -> list[Child]:
    """Return the documents with the most near-duplicates; empty without deduplication."""
    found = card.part("near_duplicates")
    if not found:
        return []
    compared = count(found.count("documents"), "document")
    if existing := found.count("existing"):
        compared += f" and {count(existing, 'document')} of other corpora"
    summary = f"Compared {compared}. Dropped {count(found.count('dropped'), 'near-duplicate')}."
    parts: list[Child] = [tag("h3", "Near-duplicates"), tag("p", summary)]
    if clusters := found.rows("clusters"):
        lines = [
            (
                [
                    tag("code", cluster.words("kept")),
                    # In the same cell, because three columns do not fit on a phone.
                    untrusted(truncate(" ".join(cluster.words("sample", 1).split()), _MAX_SAMPLE_CHARS)),
                ],
                f"{cluster.count('dropped'):,}",
            )
            for cluster in clusters
        ]
        parts += [
            table(
                "Documents with the most near-duplicates",
                ("kept document, and the beginning of a dropped near-duplicate", "dropped"),
                lines,
                num_numeric=1,
            ),
            tag("p", "To show a document and its dropped near-duplicates:"),
            tag("pre", tag("code", f"groundup corpus explain CORPUS {clusters[0].words('kept')}"), tabindex=0),
        ]
    return parts


def decontamination(card: Facts) -> list[Child]:
    """Return the evaluation items that were found in the text; empty without decontamination."""
    found = card.part("decontamination")
    if not found:
        return []
    hits = found.rows("found")
    summary = (
        f"Searched for {count(found.count('items'), 'evaluation item')} by {found.count('ngram')}-grams of words. "
        f"Dropped {count(found.count('documents'), 'document')} with {count(len(hits), 'item')}."
    )
    too_short, template = found.count("items_too_short"), found.count("items_only_template")
    if too_short or template:
        summary += (
            f" Not searched for: {count(too_short, 'item')} that are too short for a reliable match, "
            f"and {count(template, 'item')} with only template text."
        )
    lines = [
        (name, f"{file.count('items'):,}", f"{file.count('found'):,}")
        for name, file in list(found.items("files"))[:_MAX_ITEMS]
    ]
    parts: list[Child] = [tag("h3", "Decontamination"), tag("p", summary)]
    parts.append(table("Evaluation files", ("file", "items", "found in the text"), lines, num_numeric=2))
    if hits:
        shown = [
            (
                hit.words("item"),
                untrusted(join_names([sample.words() for sample in hit.rows("samples")], 3)),
                f"{hit.count('documents'):,}",
            )
            for hit in hits[:_MAX_ITEMS]
        ]
        more = len(hits) - _MAX_ITEMS
        parts.append(
            details(
                "Items found",
                table("Items found", ("item", "sample documents", "documents"), shown, num_numeric=1),
                tag("p", f"{count(more, 'item')} not shown; see card.json.", class_="note") if more > 0 else None,
            )
        )
    return parts


def quality(card: Facts) -> list[Child]:
    """Return the validation of the quality classifier; empty without one."""
    found = card.part("quality")
    if not found:
        return []
    summary = (
        f"The classifier was trained on {count(found.count('good'), 'positive example')} and "
        f"{count(found.count('bad'), 'negative example')}. On held-out examples, it keeps "
        f"{percent(found.number('good_kept') or 0)} of the positive and {percent(found.number('bad_kept') or 0)} "
        f"of the negative ones (area under the ROC curve {format_count(found.number('auc') or 0)})."
    )
    return [tag("h3", "Quality classifier"), tag("p", summary)]


def checks_section(card: Facts) -> list[Child]:
    """Return masking, near-duplicates, decontamination and the quality classifier."""
    return [masked(card), *near_duplicates(card), *decontamination(card), *quality(card)]


def text_statistics(card: Facts) -> list[Child]:
    """Return languages and document lengths."""
    return [join(part) if part else None for part in (language_section(card), lengths(card))]
