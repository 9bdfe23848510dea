"""The data card as text: a one-line summary, and card.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.core.files import atomic_file, write_json
from groundup.core.markdown import markdown_table
from groundup.corpus.card import CARD, FORMAT_VERSION, Drops, Tally, total
from groundup.corpus.funnel import FunnelStep, funnel

_BAR_WIDTH = 20  # characters
_MAX_SOURCES = 100  # maximum number of sources that the data card shows
_MAX_REASONS = 40  # maximum number of drop reasons that the data card shows per source
_MAX_CELL_ITEMS = 8  # maximum number of reasons or kinds in a table cell
_SAMPLE_CHARACTERS = 160


def reasons(card: dict[str, Any], limit: int) -> list[tuple[str, Drops]]:
    """Return the `limit` most frequent drop reasons of all sources, and the counts for each reason."""
    drops = total(Tally.from_json(source) for source in card["sources"]).drops
    return sorted(drops.items(), key=lambda pair: (-pair[1].documents, pair[0]))[:limit]


def corpus_summary(card: dict[str, Any]) -> str:
    """Summarize a corpus in one line: documents, bytes, validation set, and the most frequent drop reasons."""
    train, held_out = card["train"], card["validation"]
    line = (
        f"{train['documents'] + held_out['documents']:,} documents, {format_size(train['bytes'] + held_out['bytes'])}"
    )
    line += f" of text, {held_out['documents']:,} of them in the validation set"
    dropped = sum(drop["documents"] for source in card["sources"] for drop in source["drops"].values())
    if not dropped:
        return f"{line}; nothing dropped"
    shown = ", ".join(f"{drops.documents:,} {reason}" for reason, drops in reasons(card, 3))
    return f"{line}; {dropped:,} dropped: {shown}" + (", ..." if len(reasons(card, 4)) > 3 else "")


def found_fields(source: dict[str, Any]) -> str:
    """Return the fields that contain the text of a source's records, in the syntax of the setting `text`.

    If no fields were detected, for example because the recipe sets `text`, the result is "".
    """
    fields = source.get("fields", {})
    shown = [f"{{{path}}} ({records:,} record{'s' * (records != 1)})" for path, records in list(fields.items())[:3]]
    return ", ".join(shown) + (f" and {len(fields) - 3} other fields" if len(fields) > 3 else "")


def write_card(directory: Path, card: dict[str, Any]) -> list[Path]:
    """Write card.json and card.md and return their paths."""
    write_json(directory / CARD, {"format_version": FORMAT_VERSION} | card)
    with atomic_file(directory / "card.md") as temporary:
        temporary.write_text(markdown(card), encoding="utf-8")
    return [directory / CARD, directory / "card.md"]


def markdown(card: dict[str, Any]) -> str:
    """Render the data card as Markdown. Text that comes from the sources is escaped."""
    train, validation = card["train"], card["validation"]
    lines = [
        "# Data card",
        "",
        f"{train['documents'] + validation['documents']:,} documents, "
        f"{format_size(train['bytes'] + validation['bytes'])} of text: "
        f"{format_size(train['bytes'])} in the training set, {format_size(validation['bytes'])} in the validation set "
        f"({validation['documents']:,} documents, chosen by hash).",
        "",
    ]
    sources = card["sources"][:_MAX_SOURCES]
    rows = []
    for source in sources:
        dropped = sum(drop["documents"] for drop in source["drops"].values())
        cells = (_safe(source["name"]), _safe(source["genre"]), _safe(source["license"]))
        counts = (f"{source['files']:,}", f"{source['documents']:,}", format_size(source["bytes"]), f"{dropped:,}")
        rows.append(cells + counts)
    columns = ("source", "kind of text", "license", "files", "documents", "text", "dropped")
    lines.append(markdown_table(columns, rows, "lllrrrr").rstrip())
    more = len(card["sources"]) - len(sources)
    lines += ["", f"... and {more:,} more sources, see {CARD}."] if more > 0 else []
    for part in (_funnel, _mixture, _texts, _checks):
        lines += part(card)
    for source in sources:
        lines += _source(source)
    return "\n".join(lines) + "\n"


def _funnel(card: dict[str, Any]) -> Iterator[str]:
    found = funnel(card)
    if not found.steps:
        return
    yield from ("", "## Documents after each step", "")
    rows = []
    for step in (FunnelStep("(input)", found.documents, found.bytes), *found.steps):
        bar = _bar(step.documents, found.documents)
        drops = _counted({drop.reason: drop.documents for drop in step.drops})
        rows.append((_safe(step.step), f"{step.documents:,}", bar, format_size(step.bytes), drops))
    yield markdown_table(("step", "documents", "", "text", "dropped"), rows, "lrlrl").rstrip()


def _bar(value: int, whole: int) -> str:
    full = round(_BAR_WIDTH * min(1.0, value / (whole or 1)))
    return "█" * full + "░" * (_BAR_WIDTH - full)


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{n:,} {_safe(name)}" for name, n in list(counts.items())[:_MAX_CELL_ITEMS]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _mixture(card: dict[str, Any]) -> Iterator[str]:
    mixed = [source for source in card["sources"] if source.get("mixture")]
    if not mixed:
        return
    yield from ("", "## Mixture", "")
    rows = []
    whole = sum(source["mixture"]["epochs"] * source["bytes"] for source in mixed) or 1
    for source in mixed[:_MAX_SOURCES]:
        share = source["mixture"]
        actual = share["epochs"] * source["bytes"] / whole
        limit = " (max_epochs)" if share["limited"] else ""
        rows.append((_safe(source["name"]), f"{share['wanted']:.1%}", f"{actual:.1%}", f"{share['epochs']:.2f}{limit}"))
    yield markdown_table(("source", "target", "actual", "epochs"), rows, "lrrr").rstrip()


def _texts(card: dict[str, Any]) -> Iterator[str]:
    whole = total(Tally.from_json(source) for source in card["sources"])
    if whole.languages:
        by_size = sorted(whole.languages.items(), key=lambda pair: (-pair[1][1], pair[0]))
        rows = [
            (_safe(language), f"{documents:,}", _bar(amount, whole.bytes), format_size(amount))
            for language, (documents, amount) in by_size[:_MAX_REASONS]
        ]
        yield from ("", "## Languages", "", markdown_table(("ISO 639", "documents", "", "text"), rows, "lrlr").rstrip())
    if whole.lengths:
        lengths = [
            (f"{lower:,} to {2 * lower - 1:,}", f"{documents:,}", _bar(documents, whole.documents))
            for lower, documents in sorted(whole.lengths.items())
        ]
        yield from ("", "## Lengths", "", markdown_table(("bytes of text", "documents", ""), lengths, "lrl").rstrip())


def _checks(card: dict[str, Any]) -> Iterator[str]:
    masked: Counter[str] = Counter()
    for source in card["sources"]:
        masked.update(source.get("masked", {}))
    if masked:
        yield from ("", "## Masked values", "", _counted(dict(masked.most_common())) + ".")
    if near := card.get("near_duplicates"):
        yield from ("", "## Near-duplicates", "")
        yield f"Documents compared: {near['documents']:,}. Near-duplicates dropped: {near['dropped']:,}."
        yield ""
        for cluster in near["clusters"]:
            _, text = cluster.get("sample", ("", ""))
            sample = f", e.g. {_safe(text[:_SAMPLE_CHARACTERS])}" if text else ""
            yield f"- `{cluster['kept']}` is kept, {cluster['dropped']:,} near-duplicates are dropped{sample}"
    if found := card.get("decontamination"):
        yield from ("", "## Evaluation items", "")
        yield (
            f"Evaluation items searched by {found['ngram']}-grams: {found['items']:,}. "
            f"Found: {len(found['found']):,}. Documents dropped: {found['documents']:,}."
        )
        yield from ("", *(f"- {_safe(hit['item'])}: {hit['documents']:,}" for hit in found["found"][:_MAX_REASONS]))
    if report := card.get("quality"):
        yield from ("", "## Quality classifier", "")
        yield (
            f"Trained on {report['good']:,} positive and {report['bad']:,} negative examples. In cross-validation "
            f"the classifier kept {report['good_kept']:.1%} of the positive and {report['bad_kept']:.1%} of "
            f"the negative examples (ROC AUC {report['auc']:.3f})."
        )


def _source(source: dict[str, Any]) -> Iterator[str]:
    yield from ("", f"## {_safe(source['name'])}", "")
    yield from (f"- {_safe(key)}: {_safe(value)}" for key, value in source["provenance"].items() if value)
    first, last = source.get("dates", ("", ""))
    if first:
        yield f"- dates: {_safe(first)} to {_safe(last)}"
    if fields := found_fields(source):
        yield f"- text read from: {_safe(fields)}"
    if not source["drops"]:
        return
    drops = list(source["drops"].items())[:_MAX_REASONS]
    rows = [(_safe(reason), f"{drop['documents']:,}", format_size(drop["bytes"])) for reason, drop in drops]
    more = len(source["drops"]) - len(drops)
    if more > 0:
        rows.append((f"... and {more:,} more reasons, see {CARD}", "", ""))
    yield from ("", markdown_table(("reason", "documents", "text"), rows, "lrr").rstrip())
    yield from ("", "Samples of dropped documents:", "")
    for reason, drop in drops:
        for _, origin, text in drop["samples"]:
            yield f"- {_safe(reason)}: {_safe(origin)}{': ' + _safe(text[:_SAMPLE_CHARACTERS]) if text else ''}"


def format_size(count: int) -> str:
    """Format a number of bytes, such as "1.5 MB"."""
    if count < 1000:
        return f"{count} byte" if count == 1 else f"{count} bytes"
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _safe(text: str) -> str:
    """Return untrusted text on one line, with Markdown and HTML escaped."""
    # Joiners are part of emoji and of many scripts; other invisible characters may be misleading.
    joiners = "\u200c\u200d"
    shown = "".join(c if c.isprintable() or c.isspace() or c in joiners else "�" for c in text)
    flat = re.sub(r"\s+", " ", shown).strip()
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*_{}\[\]()#~!$])", r"\\\1", flat)
    return flat.replace("|", "&#124;")  # an entity, because `markdown_table` would escape the backslash again
