"""Before and after in one table: what tuning gained on its task, what it cost elsewhere, and which of it is noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.evaluation.metrics import Measure
from groundup.evaluation.stats import Interval

FORMAT_VERSION = 1
Verdict = Literal["better", "worse", "not distinguishable"]
COLUMNS = ("measure", "before", "after", "difference", "verdict", "without a model")


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One figure of both models on the same examples.

    Attributes:
        about: "task" is what the model was tuned for, "general" what it could do before.
        what: what was measured, and on how much of it.
        before, after: of the base and of the tuned model.
        beside: the same figure of simple ways, by name.
        seed: of the intervals.
    """

    about: Literal["task", "general"]
    what: str
    before: Measure
    after: Measure
    beside: Mapping[str, Measure] = field(default_factory=dict)
    seed: int = 0

    @property
    def difference(self) -> Interval:
        """After less before, drawn in pairs."""
        return self.after.minus(self.before, seed=self.seed)

    @property
    def verdict(self) -> Verdict:
        """Whether the tuned model is better, as far as these examples can tell."""
        return verdict(self.difference, less=self.after.less)

    def row(self) -> tuple[str, ...]:
        """For a table with `COLUMNS`."""
        figures = (self._shown(measure.interval(seed=self.seed)) for measure in (self.before, self.after))
        simple = "; ".join(f"{name}: {self._number(measure.estimate)}" for name, measure in self.beside.items())
        return (f"{self.after.name} ({self.what})", *figures, self._shown(self.difference, "+"), self.verdict, simple)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        beside = {
            name: _as_json(measure.interval(seed=self.seed))
            | {"verdict": verdict(self.after.minus(measure, seed=self.seed), less=self.after.less)}
            for name, measure in self.beside.items()
        }
        return {
            "about": self.about,
            "name": self.after.name,
            "what": self.what,
            "unit": self.after.unit,
            "less_is_better": self.after.less,
            "before": _as_json(self.before.interval(seed=self.seed)),
            "after": _as_json(self.after.interval(seed=self.seed)),
            "difference": _as_json(self.difference),
            "verdict": self.verdict,
            "beside": beside,
        }

    def said(self) -> str:
        """In a sentence's part."""
        before, after = self._number(self.before.estimate), self._number(self.after.estimate)
        return f"{self.after.name} {before} before, {after} after ({self.verdict})"

    def _number(self, value: float, sign: str = "") -> str:
        return f"{value:{sign}.1f}" if self.after.unit == "points" else f"{value:{sign}.3f}"

    def _shown(self, interval: Interval, sign: str = "") -> str:
        low, high = (
            self._number(bound, sign) if math.isfinite(bound) else "?" for bound in (interval.low, interval.high)
        )
        return f"{self._number(interval.estimate, sign)} [{low}, {high}]"


@dataclass(frozen=True, slots=True, eq=False)
class Uplift:
    """All lines, and how they came about.

    Attributes:
        notes: what a reader must know of how it was measured.
        transcripts: a few questions with both answers and the data's own.
    """

    lines: Sequence[Line]
    notes: Sequence[str] = ()
    transcripts: Sequence[Mapping[str, str]] = ()

    @property
    def sentence(self) -> str:
        """What came out, for a person: the task's first figure, and the first of what it could do before."""
        task = next((line for line in self.lines if line.about == "task"), None)
        general = next((line for line in self.lines if line.about == "general"), None)
        parts = [f"On the task, {task.said()}"] if task else []
        parts += [f"{'e' if parts else 'E'}lsewhere, {general.said()}"] if general else []
        return "; ".join(parts) + "."

    def rows(self) -> list[tuple[str, ...]]:
        """For a table with `COLUMNS`."""
        return [line.row() for line in self.lines]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "format_version": FORMAT_VERSION,
            "summary": self.sentence,
            "interval": "95 %, percentile bootstrap over examples, in pairs",
            "lines": [line.to_json() for line in self.lines],
            "notes": list(self.notes),
            "transcripts": [dict(transcript) for transcript in self.transcripts],
        }

    def to_markdown(self, title: str) -> str:
        """A page that says the same."""
        lines = [f"# {title}", "", self.sentence, ""]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *self.rows())]
        lines += ["", "In brackets: 95 % intervals, from 2,000 draws of the examples, for differences in pairs.", ""]
        lines += [f"- {note}" for note in self.notes]
        for number, transcript in enumerate(self.transcripts, 1):
            lines += ["", f"## Example {number}"]
            for who, text in transcript.items():
                lines += ["", f"{who[0].upper()}{who[1:]}:", "", *(f"    {line}" for line in text.splitlines())]
        return "\n".join(lines) + "\n"


def verdict(difference: Interval, *, less: bool) -> Verdict:
    """What an interval of a difference says, where less or more is better."""
    if not difference.excludes_zero:
        return "not distinguishable"
    return "better" if (difference.estimate < 0) == less else "worse"


def _as_json(interval: Interval) -> dict[str, Any]:
    # One example alone has no interval, and JSON has no infinity.
    bounds = [bound if math.isfinite(bound) else None for bound in (interval.low, interval.high)]
    return {"value": interval.estimate, "interval": bounds}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
