"""The statistics and checks sections of a data card.

The sections show languages, document lengths, masked values, near-duplicates, decontamination and the quality
classifier.
"""

from __future__ import annotations

from collections import Counter

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.core.plural import pluralize
from groundup.report.charts import Bar, draw_bar_chart, figure
from groundup.report.formatting import join_names, percent, size, truncate
from groundup.report.html import Child, Html, details, join, table, tag, untrusted

_MAX_LANGUAGES = 20
_MAX_KINDS = 24
_MAX_ITEMS = 40
_MAX_SAMPLE_CHARS = 100
_NUM_LENGTH_BINS = 21  # The bins start at powers of two from 1 B to 1 MiB. The last bin does not have an upper bound.


def language_section(card: Facts) -> Html | None:
    """Return a chart of the text per language, or None if languages were not identified."""
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
        Bar(_language(code), f"{pluralize(documents[code], 'document')} · {percent(amount / total)}", amount)
        for code, amount in found.most_common(_MAX_LANGUAGES)
    ]
    rest = found.most_common()[_MAX_LANGUAGES:]
    if rest:
        amount = sum(amount for _, amount in rest)
        rows.append(Bar(pluralize(len(rest), "other language"), percent(amount / total), amount))
    title = "Languages"
    shares = "; ".join(f"{row.label} {row.shown}" for row in rows)
    description = f"Bar chart of the bytes of text per language: {shares}."
    lines = [(code, f"{documents[code]:,}", size(amount)) for code, amount in found.most_common(_MAX_KINDS * 4)]
    data = table(title, ("ISO 639 code", "documents", "text"), lines, num_numeric=2)
    note = "Bytes of text in the kept documents. The language is identified from the words of each document."
    return figure(title, draw_bar_chart("languages", title, description, rows), note=note, data=data)


def _language(code: str) -> str:
    return "unknown" if code == "und" else code


def lengths(card: Facts) -> Html | None:
    """Return a histogram of document lengths, or None if the card does not contain them."""
    found: Counter[int] = Counter()
    for source in card.rows("sources"):
        for lower, documents in source.items("lengths"):
            if lower.isdecimal() and len(lower) < _NUM_LENGTH_BINS:
                found[min(int(lower).bit_length(), _NUM_LENGTH_BINS)] += documents.count()
    if not found.total():
        return None
    bins = range(min(found), max(found) + 1)  # The histogram includes empty bins between others.
    rows = [
        Bar(
            _length(power),
            f"{pluralize(found[power], 'document')} · {percent(found[power] / found.total())}",
            found[power],
        )
        for power in bins
    ]
    title = "Document lengths"
    bars = "; ".join(f"{row.label} {row.shown}" for row in rows)
    description = f"Histogram of document lengths in bytes of text: {bars}."
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
    """Return a chart of the number of masked values per kind, or None if no value was masked."""
    found: Counter[str] = Counter()
    for source in card.rows("sources"):
        for kind, counts in source.items("masked"):
            found[kind] += counts.count()
    if not found.total():
        return None
    rows = [Bar(kind, f"{amount:,}", amount) for kind, amount in found.most_common(_MAX_KINDS)]
    title = "Masked values"
    description = f"Bar chart of masked values: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    data = table(title, ("kind", "count"), [(row.label, row.shown) for row in rows], num_numeric=1)
    note = "Personal data and secrets are replaced by placeholder tokens such as [EMAIL]."
    return figure(title, draw_bar_chart("masked", title, description, rows), note=note, data=data)


def near_duplicates(card: Facts) -> list[Child]:
    """Return the kept documents that had the most near-duplicates. The list is empty if deduplication is disabled."""
    found = card.part("near_duplicates")
    if not found:
        return []
    compared = pluralize(found.count("documents"), "document")
    if existing := found.count("existing"):
        compared += f" and {pluralize(existing, 'document')} of other corpora"
    summary = f"Compared {compared}. Dropped {pluralize(found.count('dropped'), 'near-duplicate')}."
    parts: list[Child] = [tag("h3", "Near-duplicates"), tag("p", summary)]
    if clusters := found.rows("clusters"):
        lines = [
            (
                [
                    tag("code", cluster.words("kept")),
                    # The sample is in the same cell as the name, because three columns do not fit on a phone.
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
            tag("p", "This command shows a document and its dropped near-duplicates:"),
            tag("pre", tag("code", f"groundup corpus explain CORPUS {clusters[0].words('kept')}"), tabindex=0),
        ]
    return parts


def decontamination(card: Facts) -> list[Child]:
    """Return the evaluation items that occur in the corpus. The list is empty if decontamination is disabled."""
    found = card.part("decontamination")
    if not found:
        return []
    hits = found.rows("found")
    summary = (
        f"The corpus was searched for {pluralize(found.count('items'), 'evaluation item')} with word "
        f"{found.count('ngram')}-grams. "
        f"This step dropped {pluralize(found.count('documents'), 'document')} containing "
        f"{pluralize(len(hits), 'item')}."
    )
    too_short, template = found.count("items_too_short"), found.count("items_only_template")
    if too_short or template:
        summary += (
            f" The search excluded {pluralize(too_short, 'item')} too short for a reliable match, and "
            f"{pluralize(template, 'item')} with only template text."
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
                tag("p", f"{pluralize(more, 'item')} not shown; see card.json.", class_="note") if more > 0 else None,
            )
        )
    return parts


def quality(card: Facts) -> list[Child]:
    """Return the validation results of the quality classifier. The list is empty if no classifier was trained."""
    found = card.part("quality")
    if not found:
        return []
    summary = (
        f"The classifier was trained on {pluralize(found.count('good'), 'positive example')} and "
        f"{pluralize(found.count('bad'), 'negative example')}. On held-out examples, it keeps "
        f"{percent(found.number('good_kept') or 0)} of the positive examples and "
        f"{percent(found.number('bad_kept') or 0)} of the negative examples. The area under the ROC curve is "
        f"{format_count(found.number('auc') or 0)}."
    )
    return [tag("h3", "Quality classifier"), tag("p", summary)]


def checks_section(card: Facts) -> list[Child]:
    """Return the content about masked values, near-duplicates, decontamination and the quality classifier."""
    return [masked(card), *near_duplicates(card), *decontamination(card), *quality(card)]


def text_statistics(card: Facts) -> list[Child]:
    """Return the charts of languages and document lengths."""
    return [join(part) if part else None for part in (language_section(card), lengths(card))]
