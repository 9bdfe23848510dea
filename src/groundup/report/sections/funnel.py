"""The filters section of a data card.

The section shows the documents and bytes that remain after each step, the reasons for which documents were dropped, and
samples of dropped documents.
"""

from __future__ import annotations

from groundup.core.facts import Facts
from groundup.core.plural import pluralize
from groundup.corpus.funnel import MIXTURE, Funnel, FunnelStep, funnel
from groundup.report import charts
from groundup.report.charts import FunnelLevel, figure
from groundup.report.formatting import percent, size, truncate
from groundup.report.html import Child, Html, details, join, table, tag, untrusted

_MAX_TOP_REASONS = 8
_MAX_REASONS = 12  # Maximum number of reasons per step.
_MAX_REJECTS = 36
_MAX_REJECT_CHARS = 200
_TITLE = "Documents after each step"
_NAMES = {  # Labels of all other steps contain the name of the filter.
    "reading": "readable",
    "length": "long enough",
    "language": "in a selected language",
    "quality": "accepted by the quality classifier",
    "perplexity": "within the perplexity limits",
    "decontamination": "without evaluation items",
    "privacy": "after masking",
    "duplicates": "without duplicates",
    MIXTURE: "after the mixture",
}


def funnel_section(card: Facts) -> list[Child]:
    """Return the funnel chart, the most frequent reasons for dropping documents, and samples of dropped documents."""
    counts = funnel(card)
    return [_funnel(counts), _reasons(counts), _rejects(card)]


def _funnel(found: Funnel) -> Html | None:
    if not found.steps:
        return None
    if not any(step.drops or step.cut for step in found.steps):
        return tag("p", f"The filters kept all {pluralize(found.documents, 'document')}.")
    levels = [FunnelLevel("found", _shown(found.documents, found.bytes), 1.0, 1.0)]
    levels += [_level(step, found) for step in found.steps]
    last = found.steps[-1]
    description = (
        f"{last.documents:,} of {found.documents:,} documents remain; "
        + "; ".join(f"{level.label}: {level.shown}" for level in levels)
        + "."
    )
    note = (
        "Thick bars show documents, and thin bars show bytes. The light part of a bar is dropped in the step. The "
        "label describes the documents that remain after the step."
    )
    drawn = charts.draw_funnel_chart("funnel", _TITLE, description, levels)
    return figure(_TITLE, drawn, note=note, data=_data_table(found))


def _reasons(found: Funnel) -> Html | None:
    """Return a table of the most frequent reasons for dropping documents, over all steps."""
    drops = sorted(((drop, step.step) for step in found.steps for drop in step.drops), key=lambda d: -d[0].documents)
    if not drops:
        return None
    title = "Most frequent reasons"
    rows = [(drop.reason, step, f"{drop.documents:,}", size(drop.bytes)) for drop, step in drops[:_MAX_TOP_REASONS]]
    columns = ("reason", "step", "documents", "text")
    return join(tag("h3", title), table(title, columns, rows, num_numeric=2))


def _level(step: FunnelStep, found: Funnel) -> FunnelLevel:
    shares = step.documents / (found.documents or 1), step.bytes / (found.bytes or 1)
    return FunnelLevel(step_name(step.step), _shown(step.documents, step.bytes), *shares)


def _shown(documents: int, amount: int) -> str:
    return f"{documents:,} · {size(amount)}"


def step_name(step: str) -> str:
    """Return a label that describes the documents that remain after a step."""
    return _NAMES.get(step, f"accepted by {step}")


def _data_table(found: Funnel) -> Html:
    rows: list[list[Child]] = []
    for step in found.steps:
        for drop in step.drops[:_MAX_REASONS]:
            rows.append([step.step, drop.reason, f"{drop.documents:,}", size(drop.bytes)])
        if rest := step.drops[_MAX_REASONS:]:
            documents, amount = sum(drop.documents for drop in rest), sum(drop.bytes for drop in rest)
            rows.append([step.step, f"and {pluralize(len(rest), 'other reason')}", f"{documents:,}", size(amount)])
        if step.cut > 0:
            rows.append([step.step, "removed from kept documents", "", size(step.cut)])
        share = percent(step.documents / (found.documents or 1))
        rows.append([step.step, tag("strong", f"remaining: {share}"), f"{step.documents:,}", size(step.bytes)])
    return table(_TITLE, ("step", "reason", "documents", "text"), rows, num_numeric=2)


def _rejects(card: Facts) -> Html | None:
    """Return the beginnings of some dropped documents, so that users can check the filters."""
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
            tag("p", tag("strong", reason), " · ", name, " · ", truncate(sample.words(1), 80), class_="note"),
            untrusted(truncate(sample.words(2), _MAX_REJECT_CHARS)),
        )
        for _, reason, name, sample in _sample_reasons(found)
    ]
    return details(f"Samples of dropped documents ({len(shown)})", tag("ul", shown, class_="rejects"))


def _sample_reasons(found: list[tuple[int, str, str, Facts]]) -> list[tuple[int, str, str, Facts]]:
    """Limit the number of samples per reason, so that the samples cover all reasons."""
    reasons = len({reason for _, reason, _, _ in found})
    max_per_reason = max(1, _MAX_REJECTS // reasons)
    counts: dict[str, int] = {}
    chosen = []
    for item in found:
        counts[item[1]] = counts.get(item[1], 0) + 1
        if counts[item[1]] <= max_per_reason:
            chosen.append(item)
    return chosen[:_MAX_REJECTS]
