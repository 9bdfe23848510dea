"""From what was found to what stays: a section of a data card alone."""

from __future__ import annotations

from groundup.core.facts import Facts
from groundup.corpus.funnel import MIXTURE, RULES, Funnel, FunnelStep, funnel
from groundup.report import charts
from groundup.report.charts import Level, figure
from groundup.report.html import Child, Html, folded, foreign, join, table, tag
from groundup.report.words import count, percent, shortened, size

_MAIN_REASONS = 8
_MOST_REASONS = 12  # of each step
_MOST_REJECTS = 36
_REJECT_CHARACTERS = 200
_TITLE = "From what was found to what stays"
_NAMES = {  # of steps, for readers; those of a recipe's filters are their published names
    "reading": "could be read",
    "length": "long enough",
    "language": "in a wanted language",
    "quality": "like your examples",
    "perplexity": "within the perplexity limits",
    "judge": "within the perplexity limits",  # the name of the step in cards of earlier versions
    "decontamination": "not of an evaluation",
    "privacy": "after masking",
    "duplicates": "there only once",
    RULES: "passed all rules",
    MIXTURE: "as the mixture reads it",
}


def passage(card: Facts) -> list[Child]:
    """The funnel, what each step dropped and why, and samples of it."""
    found = funnel(card)
    return [_funnel(found), _reasons(found), _rejects(card)]


def _funnel(found: Funnel) -> Html | None:
    if not found.steps:
        return None
    if not any(step.drops or step.cut for step in found.steps):
        return tag("p", f"All {count(found.documents, 'document')} that were found were kept.")
    levels = [Level("found", _shown(found.documents, found.bytes), 1.0, 1.0)]
    levels += [_level(step, found) for step in found.steps]
    last = found.steps[-1]
    description = (
        f"Of {found.documents:,} documents {last.documents:,} are left; "
        + "; ".join(f"{level.label}: {level.shown}" for level in levels)
        + "."
    )
    note = (
        "The thick bar is documents, the thin one is their text; what a step took away is pale. Each step is named "
        "for what is true of the documents after it."
    )
    drawn = charts.draw_funnel_chart("funnel", _TITLE, description, levels)
    return figure(_TITLE, drawn, note=note, figures=_sheet(found))


def _reasons(found: Funnel) -> Html | None:
    """Why most was dropped, whatever the step."""
    drops = sorted(((drop, step.step) for step in found.steps for drop in step.drops), key=lambda d: -d[0].documents)
    if not drops:
        return None
    title = "Why most was dropped"
    rows = [(drop.reason, step, f"{drop.documents:,}", size(drop.bytes)) for drop, step in drops[:_MAIN_REASONS]]
    columns = ("dropped because", "at the step", "documents", "text")
    return join(tag("h3", title), table(title, columns, rows, figures=2))


def _level(step: FunnelStep, found: Funnel) -> Level:
    shares = step.documents / (found.documents or 1), step.bytes / (found.bytes or 1)
    return Level(step_name(step.step), _shown(step.documents, step.bytes), *shares)


def _shown(documents: int, amount: int) -> str:
    return f"{documents:,} · {size(amount)}"


def step_name(step: str) -> str:
    """What is true of documents after a step."""
    return _NAMES.get(step, f"passed {step}")


def _sheet(found: Funnel) -> Html:
    rows: list[list[Child]] = []
    for step in found.steps:
        for drop in step.drops[:_MOST_REASONS]:
            rows.append([step.step, drop.reason, f"{drop.documents:,}", size(drop.bytes)])
        if rest := step.drops[_MOST_REASONS:]:
            documents, amount = sum(drop.documents for drop in rest), sum(drop.bytes for drop in rest)
            rows.append([step.step, f"and {count(len(rest), 'other reason')}", f"{documents:,}", size(amount)])
        if step.cut > 0:
            rows.append([step.step, "taken out of documents that went on", "", size(step.cut)])
        share = percent(step.documents / (found.documents or 1))
        rows.append([step.step, tag("strong", f"left: {share}"), f"{step.documents:,}", size(step.bytes)])
    return table(_TITLE, ("step", "dropped because", "documents", "text"), rows, figures=2)


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
        for _, reason, name, sample in _of_every_reason(found)
    ]
    return folded(f"Some of what was dropped ({len(shown)} samples)", tag("ul", shown, class_="rejects"))


def _of_every_reason(found: list[tuple[int, str, str, Facts]]) -> list[tuple[int, str, str, Facts]]:
    """So few of each reason that all reasons can have some, as far as there is room."""
    reasons = len({reason for _, reason, _, _ in found})
    most = max(1, _MOST_REJECTS // reasons)
    taken: dict[str, int] = {}
    chosen = []
    for item in found:
        taken[item[1]] = taken.get(item[1], 0) + 1
        if taken[item[1]] <= most:
            chosen.append(item)
    return chosen[:_MOST_REJECTS]
