"""The data card in words: one line, and card.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.core.files import atomic_file, write_json
from groundup.corpus.card import CARD, FORMAT_VERSION, Drops, Tally, total
from groundup.corpus.funnel import FunnelStep, funnel

_BAR = 20  # blocks of a bar in a table
_MAX_SOURCES = 100  # with a section of their own
_MAX_REASONS = 40  # of a source
_MAX_CELL_ITEMS = 8  # reasons, languages and kinds in one cell
_SAMPLE_CHARACTERS = 160


def reasons(card: dict[str, Any], most: int) -> list[tuple[str, Drops]]:
    """The reasons why most was dropped, all sources together, and what was."""
    drops = total(Tally.from_json(source) for source in card["sources"]).drops
    return sorted(drops.items(), key=lambda pair: (-pair[1].documents, pair[0]))[:most]


def corpus_summary(card: dict[str, Any]) -> str:
    """A corpus in one line: documents, text, what is held out, and the main reasons why others were dropped."""
    train, held_out = card["train"], card["validation"]
    line = (
        f"{train['documents'] + held_out['documents']:,} documents, {format_size(train['bytes'] + held_out['bytes'])}"
    )
    line += f" of text, {held_out['documents']:,} of them held out"
    dropped = sum(drop["documents"] for source in card["sources"] for drop in source["drops"].values())
    if not dropped:
        return f"{line}; nothing dropped"
    shown = ", ".join(f"{drops.documents:,} {reason}" for reason, drops in reasons(card, 3))
    return f"{line}; {dropped:,} dropped: {shown}" + (", ..." if len(reasons(card, 4)) > 3 else "")


def found_fields(source: dict[str, Any]) -> str:
    """Where the text of a source's records was found, as a recipe's `text` would say it; "" if that was told."""
    fields = source.get("fields", {})
    shown = [f"{{{path}}} ({records:,} record{'s' * (records != 1)})" for path, records in list(fields.items())[:3]]
    return ", ".join(shown) + (f" and {len(fields) - 3} other fields" if len(fields) > 3 else "")


def write_card(directory: Path, card: dict[str, Any]) -> list[Path]:
    """Write card.json and card.md; returns their paths."""
    write_json(directory / CARD, {"format_version": FORMAT_VERSION} | card)
    with atomic_file(directory / "card.md") as temporary:
        temporary.write_text(markdown(card), encoding="utf-8")
    return [directory / CARD, directory / "card.md"]


def markdown(card: dict[str, Any]) -> str:
    """The card as a page of Markdown, in which no foreign text is markup."""
    train, validation = card["train"], card["validation"]
    lines = [
        "# Data card",
        "",
        f"{train['documents'] + validation['documents']:,} documents, "
        f"{format_size(train['bytes'] + validation['bytes'])} of text: {format_size(train['bytes'])} to train on, "
        f"{format_size(validation['bytes'])} held out "
        f"({validation['documents']:,} documents, chosen by hash).",
        "",
        "| source | kind of text | license | files | documents | text | dropped |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    sources = card["sources"][:_MAX_SOURCES]
    for source in sources:
        dropped = sum(drop["documents"] for drop in source["drops"].values())
        cells = (_safe(source["name"]), _safe(source["genre"]), _safe(source["license"]))
        counts = (f"{source['files']:,}", f"{source['documents']:,}", format_size(source["bytes"]), f"{dropped:,}")
        lines.append(f"| {' | '.join(cells + counts)} |")
    more = len(card["sources"]) - len(sources)
    lines += ["", f"and {more:,} sources more: see {CARD}."] if more > 0 else []
    for part in (_funnel, _mixture, _texts, _checks):
        lines += part(card)
    for source in sources:
        lines += _source(source)
    return "\n".join(lines) + "\n"


def _funnel(card: dict[str, Any]) -> Iterator[str]:
    found = funnel(card)
    if not found.steps:
        return
    yield from ("", "## From what was found to what stays", "")
    yield from ("| after the step | documents | | text | dropped there |", "| --- | ---: | --- | ---: | --- |")
    for step in (FunnelStep("(found)", found.documents, found.bytes), *found.steps):
        bar = _bar(step.documents, found.documents)
        drops = _counted({drop.reason: drop.documents for drop in step.drops})
        yield f"| {_safe(step.step)} | {step.documents:,} | {bar} | {format_size(step.bytes)} | {drops} |"


def _bar(value: int, whole: int) -> str:
    full = round(_BAR * min(1.0, value / (whole or 1)))
    return "█" * full + "░" * (_BAR - full)


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{n:,} {_safe(name)}" for name, n in list(counts.items())[:_MAX_CELL_ITEMS]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _mixture(card: dict[str, Any]) -> Iterator[str]:
    mixed = [source for source in card["sources"] if source.get("mixture")]
    if not mixed:
        return
    yield from ("", "## The mixture", "", "| source | wanted | got | read |", "| --- | ---: | ---: | ---: |")
    whole = sum(source["mixture"]["epochs"] * source["bytes"] for source in mixed) or 1
    for source in mixed[:_MAX_SOURCES]:
        share = source["mixture"]
        got = share["epochs"] * source["bytes"] / whole
        limit = ", the limit" if share["limited"] else ""
        yield f"| {_safe(source['name'])} | {share['wanted']:.1%} | {got:.1%} | {share['epochs']:.2f} times{limit} |"


def _texts(card: dict[str, Any]) -> Iterator[str]:
    whole = total(Tally.from_json(source) for source in card["sources"])
    if whole.languages:
        yield from ("", "## Languages", "", "| ISO 639 | documents | | text |", "| --- | ---: | --- | ---: |")
        spoken = sorted(whole.languages.items(), key=lambda pair: (-pair[1][1], pair[0]))
        for language, (documents, amount) in spoken[:_MAX_REASONS]:
            yield f"| {_safe(language)} | {documents:,} | {_bar(amount, whole.bytes)} | {format_size(amount)} |"
    if whole.lengths:
        yield from ("", "## Lengths", "", "| bytes of text | documents | |", "| --- | ---: | --- |")
        for least in sorted(whole.lengths):
            documents = whole.lengths[least]
            yield f"| {least:,} to {2 * least - 1:,} | {documents:,} | {_bar(documents, whole.documents)} |"


def _checks(card: dict[str, Any]) -> Iterator[str]:
    masked: Counter[str] = Counter()
    for source in card["sources"]:
        masked.update(source.get("masked", {}))
    if masked:
        yield from ("", "## What was masked", "", _counted(dict(masked.most_common())) + ".")
    if near := card.get("near_duplicates"):
        yield from ("", "## Near-duplicates", "")
        yield f"Documents: {near['documents']:,}; nearly the same as one that stays: {near['dropped']:,}."
        yield ""
        for cluster in near["clusters"]:
            _, text = cluster.get("sample", ("", ""))
            begins = f", one of which begins: {_safe(text[:_SAMPLE_CHARACTERS])}" if text else ""
            yield f"- `{cluster['kept']}` stays in the place of {cluster['dropped']:,}{begins}"
    if found := card.get("decontamination"):
        yield from ("", "## Evaluation items", "")
        yield (
            f"Looked for, by runs of {found['ngram']} words: {found['items']:,}; found: {len(found['found']):,}; "
            f"documents that had them, and were dropped: {found['documents']:,}."
        )
        yield from ("", *(f"- {_safe(hit['item'])}: {hit['documents']:,}" for hit in found["found"][:_MAX_REASONS]))
    if report := card.get("quality"):
        yield from ("", "## Like the examples", "")
        yield (
            f"Learned from {report['good']:,} texts of the wanted kind and {report['bad']:,} of the other; of those "
            f"not learned from it kept {report['good_kept']:.1%} and {report['bad_kept']:.1%} (area under the ROC "
            f"curve {report['auc']:.3f})."
        )


def _source(source: dict[str, Any]) -> Iterator[str]:
    yield from ("", f"## {_safe(source['name'])}", "")
    yield from (f"- {_safe(key)}: {_safe(value)}" for key, value in source["provenance"].items() if value)
    first, last = source.get("dates", ("", ""))
    if first:
        yield f"- dates: {_safe(first)} to {_safe(last)}"
    if fields := found_fields(source):
        yield f"- text taken from: {_safe(fields)}"
    if not source["drops"]:
        return
    drops = list(source["drops"].items())[:_MAX_REASONS]
    yield from ("", "| dropped because | documents | text |", "| --- | ---: | ---: |")
    yield from (f"| {_safe(reason)} | {drop['documents']:,} | {format_size(drop['bytes'])} |" for reason, drop in drops)
    more = len(source["drops"]) - len(drops)
    if more > 0:
        yield f"| and {more:,} other reasons: see {CARD} | | |"
    yield from ("", "Some of what was dropped:", "")
    for reason, drop in drops:
        for _, origin, text in drop["samples"]:
            yield f"- {_safe(reason)}: {_safe(origin)}{': ' + _safe(text[:_SAMPLE_CHARACTERS]) if text else ''}"


def format_size(count: int) -> str:
    """Bytes for people."""
    if count < 1000:
        return f"{count} byte" if count == 1 else f"{count} bytes"
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _safe(text: str) -> str:
    """A foreign text on one line of Markdown, with no markup or HTML of its own."""
    joiners = "\u200c\u200d"  # part of emoji and of many scripts; other invisible characters could deceive
    shown = "".join(c if c.isprintable() or c.isspace() or c in joiners else "�" for c in text)
    flat = re.sub(r"\s+", " ", shown).strip()
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~!$])", r"\\\1", flat)
