"""What tuning gained and what it cost: the tables that `groundup compare` left."""

from __future__ import annotations

from groundup.core.facts import Facts
from groundup.report.html import Child, folded, foreign, table, tag
from groundup.report.record import COMPARE, RunRecord, StageOutput
from groundup.report.words import interval, number, shortened

_CHARACTERS = 1200
_COLUMNS = ("measure", "before", "after", "difference", "the tuned model is", "without a model")


def uplift(run: RunRecord) -> list[Child]:
    """The parts for all comparisons of a run; none where there is none."""
    return [part for output in run.outputs if output.stage == COMPARE for part in _comparison(output)]


def _comparison(output: StageOutput) -> list[Child]:
    lines = output.facts.rows("lines")
    if not lines:
        return []
    title = f"Before and after ({output.directory.name}/)"
    notes = [tag("li", shortened(note, 300)) for note in output.facts.at("notes") or [] if isinstance(note, str)]
    return [
        tag("h3", "Before and after tuning"),
        tag("p", shortened(output.facts.words("summary"), 400)),
        table(title, _COLUMNS, [_row(line) for line in lines]),
        tag(
            "p", "In brackets, 95 % intervals; those of differences are of the same examples, in pairs.", class_="note"
        ),
        tag("ul", notes, class_="note") if notes else None,
        *(_transcript(item) for item in output.facts.rows("transcripts")[:3]),
    ]


def _row(line: Facts) -> list[Child]:
    digits = 1 if line.words("unit") == "points" else 3
    direction = ", less is better" if line.at("less_is_better") is True else ""
    figures = [interval(line.estimate(key), digits) for key in ("before", "after", "difference")]
    beside = [f"{name}: {number(found.number('value'), digits)}" for name, found in line.items("beside")]
    name = f"{line.words('name')} ({line.words('what')}{direction})"
    return [name, *figures, line.words("verdict"), "; ".join(beside)]


def _transcript(item: Facts) -> Child:
    said = [
        tag(
            "div",
            tag("p", who, class_="who"),
            foreign(shortened(text.words() or "(nothing)", _CHARACTERS)),
            class_="turn",
        )
        for who, text in item.items()
    ]
    return folded(f"Asked: {shortened(item.words('question'), 80)}", *said)
