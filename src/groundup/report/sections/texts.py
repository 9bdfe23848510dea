"""What the documents of a corpus are like, and what was looked for in them: sections of a data card alone."""

from __future__ import annotations

from collections import Counter

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.report.charts import Bar, draw_bar_chart, figure
from groundup.report.html import Child, Html, folded, foreign, join, table, tag
from groundup.report.words import count, listed, percent, shortened, size

_MOST_LANGUAGES = 20
_MOST_KINDS = 24
_MOST_ITEMS = 40
_SAMPLE_CHARACTERS = 100
_LENGTHS = 21  # powers of two from a byte to a megabyte; what is longer is put together


def language_section(card: Facts) -> Html | None:
    """Text of each language; None where nobody asked."""
    found: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for source in card.rows("sources"):
        for language, counts in source.items("languages"):
            documents[language] += counts.count(0)
            found[language] += counts.count(1)
    if not found:
        return None
    whole = found.total() or 1
    rows = [
        Bar(_language(code), f"{count(documents[code], 'document')} · {percent(amount / whole)}", amount)
        for code, amount in found.most_common(_MOST_LANGUAGES)
    ]
    rest = found.most_common()[_MOST_LANGUAGES:]
    if rest:
        amount = sum(amount for _, amount in rest)
        rows.append(Bar(f"and {count(len(rest), 'other language')}", percent(amount / whole), amount))
    title = "Languages"
    description = f"Bars: bytes of text. {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    lines = [(code, f"{documents[code]:,}", size(amount)) for code, amount in found.most_common(_MOST_KINDS * 4)]
    sheet = table(title, ("ISO 639 code", "documents", "text"), lines, figures=2)
    note = "Of the documents that are kept, by their share of the text; told by the words of each."
    return figure(title, draw_bar_chart("languages", title, description, rows), note=note, figures=sheet)


def _language(code: str) -> str:
    return "not to be told" if code == "und" else code


def lengths(card: Facts) -> Html | None:
    """How long the documents are, in classes of powers of two; None where nobody counted."""
    found: Counter[int] = Counter()
    for source in card.rows("sources"):
        for least, documents in source.items("lengths"):
            if least.isdecimal() and len(least) < _LENGTHS:
                found[min(int(least).bit_length(), _LENGTHS)] += documents.count()
    if not found.total():
        return None
    classes = range(min(found), max(found) + 1)  # empty ones between too: a gap is a fact
    rows = [
        Bar(
            _length(power),
            f"{count(found[power], 'document')} · {percent(found[power] / found.total())}",
            found[power],
        )
        for power in classes
    ]
    title = "How long the documents are"
    description = f"Bars: documents by bytes of text. {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    sheet = table(title, ("bytes of text", "documents"), [(_length(p), f"{found[p]:,}") for p in classes], figures=1)
    return figure(title, draw_bar_chart("lengths", title, description, rows), figures=sheet)


def _length(power: int) -> str:
    least = 1 << max(0, power - 1)
    return f"{_binary(least)} and more" if power >= _LENGTHS else f"{_binary(least)} to {_binary(2 * least)}"


def _binary(amount: int) -> str:
    for scale, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if amount >= scale:
            return f"{amount // scale} {unit}"
    return f"{amount} B"


def masked(card: Facts) -> Html | None:
    """Personal data and secrets that were masked, by kind; None where there was nothing."""
    found: Counter[str] = Counter()
    for source in card.rows("sources"):
        for kind, counts in source.items("masked"):
            found[kind] += counts.count()
    if not found.total():
        return None
    rows = [Bar(kind, f"{amount:,}", amount) for kind, amount in found.most_common(_MOST_KINDS)]
    title = "What was masked"
    description = f"Bars: how often. {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    sheet = table(title, ("kind", "times"), [(row.label, row.shown) for row in rows], figures=1)
    note = "Personal data and secrets: a word in brackets that names the kind stands in their place."
    return figure(title, draw_bar_chart("masked", title, description, rows), note=note, figures=sheet)


def near_duplicates(card: Facts) -> list[Child]:
    """The documents that had most copies, and how to look at them; nothing where nobody looked."""
    found = card.part("near_duplicates")
    if not found:
        return []
    looked = f"{count(found.count('documents'), 'document')} were compared with one another"
    if existing := found.count("existing"):
        looked += f" and with {count(existing, 'document')} of other corpora"
    dropped = found.count("dropped")
    said = f"{looked}; {dropped:,} {'was' if dropped == 1 else 'were'} nearly the same as one that stays."
    parts: list[Child] = [tag("h3", "Near-duplicates"), tag("p", said)]
    if clusters := found.rows("clusters"):
        lines = [
            (
                [
                    tag("code", cluster.words("kept")),
                    # Below the id, not beside it: a phone has no room for three columns.
                    foreign(shortened(" ".join(cluster.words("sample", 1).split()), _SAMPLE_CHARACTERS)),
                ],
                f"{cluster.count('dropped'):,}",
            )
            for cluster in clusters
        ]
        parts += [
            table(
                "Documents with most near-copies",
                ("document that stays, and how one begins that was dropped for it", "near-copies dropped"),
                lines,
                figures=1,
            ),
            tag("p", "To read one, and to see what was dropped for it:"),
            tag("pre", tag("code", f"groundup corpus explain CORPUS {clusters[0].words('kept')}"), tabindex=0),
        ]
    return parts


def decontamination(card: Facts) -> list[Child]:
    """Which evaluation items were found in the text; nothing where nobody asked."""
    found = card.part("decontamination")
    if not found:
        return []
    hits = found.rows("found")
    said = (
        f"{count(found.count('items'), 'item')} of evaluations were looked for by their runs of "
        f"{found.count('ngram')} words; {count(found.count('documents'), 'document')} that had "
        f"{count(len(hits), 'item')} of them were dropped."
    )
    too_short, template = found.count("items_too_short"), found.count("items_only_template")
    if too_short or template:
        said += (
            f" Not looked for: {count(too_short, 'item')} too short to be told from chance, "
            f"and {count(template, 'item')} with no words but those of a template."
        )
    lines = [
        (name, f"{file.count('items'):,}", f"{file.count('found'):,}")
        for name, file in list(found.items("files"))[:_MOST_ITEMS]
    ]
    parts: list[Child] = [tag("h3", "Evaluation items"), tag("p", said)]
    parts.append(table("Evaluations", ("file", "items", "found in the text"), lines, figures=2))
    if hits:
        shown = [
            (
                hit.words("item"),
                foreign(listed([sample.words() for sample in hit.rows("samples")], 3)),
                f"{hit.count('documents'):,}",
            )
            for hit in hits[:_MOST_ITEMS]
        ]
        more = len(hits) - _MOST_ITEMS
        parts.append(
            folded(
                "The items that were found",
                table("Items that were found", ("item", "in documents such as", "documents"), shown, figures=1),
                tag("p", f"and {count(more, 'item')} more: see card.json.", class_="note") if more > 0 else None,
            )
        )
    return parts


def quality(card: Facts) -> list[Child]:
    """How well the user's examples of good and bad text could be told apart; nothing where there were none."""
    found = card.part("quality")
    if not found:
        return []
    said = (
        f"A classifier learned from {count(found.count('good'), 'text')} of the wanted kind and "
        f"{found.count('bad'):,} of the other. On examples that it had not learned from, it kept "
        f"{percent(found.number('good_kept') or 0)} of the wanted and {percent(found.number('bad_kept') or 0)} "
        f"of the other (area under the ROC curve {format_count(found.number('auc') or 0)}; 0.5 is chance, 1 perfect)."
    )
    return [tag("h3", "Like your examples"), tag("p", said)]


def checks(card: Facts) -> list[Child]:
    """What was looked for in the text and taken out, or kept out."""
    return [masked(card), *near_duplicates(card), *decontamination(card), *quality(card)]


def texts(card: Facts) -> list[Child]:
    """What the documents are like."""
    return [join(part) if part else None for part in (language_section(card), lengths(card))]
