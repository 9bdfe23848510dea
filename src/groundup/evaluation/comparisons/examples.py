"""Comparison of two models on the same examples with confidence intervals, and a report that lists the comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from groundup.core.files import write_json, write_text
from groundup.core.markdown import markdown_table
from groundup.evaluation.measure import Measure
from groundup.evaluation.stats import Interval, mean_interval, welch_difference

FORMAT_VERSION = 2
COLUMNS = ("metric", "before", "after", "difference", "verdict", "baselines")

Verdict = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of two models by one metric on the same examples.

    Attributes:
        before: metric of the base model or of a baseline.
        after: metric of the evaluated model.
        seed: seed of the bootstrap.
        about: "task" if the examples belong to the task of fine-tuning, "general" if they measure whether the model
            kept the abilities of its base model.
        what: description of the examples.
        baselines: the same metric for each baseline that does not use a model, keyed by the name of the baseline.
    """

    before: Measure
    after: Measure
    seed: int = 0
    about: Literal["task", "general"] = "task"
    what: str = ""
    baselines: Mapping[str, Measure] = field(default_factory=dict)

    @cached_property
    def difference(self) -> Interval:
        """Difference `after` - `before` with its paired bootstrap interval."""
        return self.after.minus(self.before, seed=self.seed)

    def interval(self, measure: Measure) -> Interval:
        """Return a metric with its interval."""
        return measure.interval(seed=self.seed)

    @property
    def verdict(self) -> Verdict:
        """Whether `after` is better or worse than `before`.

        The verdict is "not distinguishable" if the interval of the difference includes 0.
        """
        if not self.difference.excludes_zero:
            return "not distinguishable"
        return "better" if (self.difference.estimate < 0) == self.after.lower_is_better else "worse"

    @property
    def sentence(self) -> str:
        """Sentence that reports both values, their difference and the verdict."""
        after, before = self.number(self.after.estimate), self.number(self.before.estimate)
        return f"{after} {self.after.unit}, {before} before; {self.difference_and_verdict}."

    @property
    def summary(self) -> str:
        """Clause, without a full stop, that reports both values and the verdict."""
        before, after = self.number(self.before.estimate), self.number(self.after.estimate)
        return f"{self.after.name} {before} before, {after} after ({self.verdict})"

    @property
    def difference_and_verdict(self) -> str:
        """Text with the difference, its interval and the verdict."""
        return f"difference {self._shown(self.difference, '+')}: {self.verdict}"

    def row(self) -> tuple[str, ...]:
        """Return this comparison as a table row. The columns are `COLUMNS`."""
        figures = (self._shown(self.interval(measure)) for measure in (self.before, self.after))
        simple = "; ".join(f"{name}: {self.number(measure.estimate)}" for name, measure in self.baselines.items())
        return (f"{self.after.name} ({self.what})", *figures, self._shown(self.difference, "+"), self.verdict, simple)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values, with an interval for each model and each baseline."""
        baselines = {
            name: self.interval(measure).to_json() | {"verdict": Comparison(measure, self.after, self.seed).verdict}
            for name, measure in self.baselines.items()
        }
        return {
            "about": self.about,
            "name": self.after.name,
            "what": self.what,
            "unit": self.after.unit,
            "less_is_better": self.after.lower_is_better,
            "before": self.interval(self.before).to_json(),
            "after": self.interval(self.after).to_json(),
            "difference": self.difference.to_json(),
            "verdict": self.verdict,
            "baselines": baselines,
        }

    def facts(self) -> dict[str, Any]:
        """Return estimates, difference and verdict without nesting, as JSON values for an artifact."""
        return {
            "after": self.after.estimate,
            "before": self.before.estimate,
            "difference": self.difference.estimate,
            "difference_interval": self.difference.bounds,
            "verdict": self.verdict,
        }

    def number(self, value: float, sign: str = "") -> str:
        """Format a value with 1 decimal place if the unit is points, otherwise with 3."""
        return f"{value:{sign}.1f}" if self.after.unit == "points" else f"{value:{sign}.3f}"

    def _shown(self, interval: Interval, sign: str = "") -> str:
        low, high = (
            self.number(bound, sign) if math.isfinite(bound) else "?" for bound in (interval.low, interval.high)
        )
        return f"{self.number(interval.estimate, sign)} [{low}, {high}]"


@dataclass(frozen=True, eq=False)
class SeedComparison(Comparison):
    """Comparison of two recipes by the models that they trained with several seeds.

    The metrics have one example per seed. The intervals cover the differences between seeds: Student's t for each
    recipe, and Welch's t (Welch 1947) for the difference of the means.
    """

    @cached_property
    def difference(self) -> Interval:
        """Difference of the means over seeds, `after` - `before`, with its interval."""
        before, after = (measure.per_example().tolist() for measure in (self.before, self.after))
        return welch_difference(before, after)

    def interval(self, measure: Measure) -> Interval:
        """Return the mean over seeds with its interval."""
        return mean_interval(measure.per_example().tolist())

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values, with the value of each seed."""
        values = {"before": self.before.per_example().tolist(), "after": self.after.per_example().tolist()}
        return super().to_json() | {"values": values}


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonReport:
    """All comparisons of two models.

    Attributes:
        comparisons: one comparison per metric and task.
        notes: remarks on the method, which are printed in the report.
        transcripts: sample questions with the answers of both models and the reference answer.
        method: method of the intervals.
    """

    comparisons: Sequence[Comparison]
    notes: Sequence[str] = ()
    transcripts: Sequence[Mapping[str, str]] = ()
    method: str = "95 %, paired percentile bootstrap over examples"

    def __or__(self, other: ComparisonReport) -> ComparisonReport:
        """Return a report with the comparisons, notes and transcripts of both reports."""
        return ComparisonReport(
            [*self.comparisons, *other.comparisons],
            [*self.notes, *other.notes],
            [*self.transcripts, *other.transcripts],
        )

    @property
    def sentence(self) -> str:
        """Sentence about the first comparison on the fine-tuning task and the first comparison on general data."""
        task = next((each for each in self.comparisons if each.about == "task"), None)
        general = next((each for each in self.comparisons if each.about == "general"), None)
        parts = [f"On the task, {task.summary}"] if task else []
        parts += [f"{'i' if parts else 'I'}n general, {general.summary}"] if general else []
        return "; ".join(parts) + "."

    def rows(self) -> list[tuple[str, ...]]:
        """Return one table row per comparison. The columns are `COLUMNS`."""
        return [each.row() for each in self.comparisons]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "summary": self.sentence,
            "interval": self.method,
            "lines": [each.to_json() for each in self.comparisons],
            "notes": list(self.notes),
            "transcripts": [dict(transcript) for transcript in self.transcripts],
        }

    def to_markdown(self, title: str) -> str:
        """Return the report as a Markdown page."""
        table = markdown_table(COLUMNS, self.rows(), "lrrrll")
        lines = [f"# {title}", "", self.sentence, "", table, f"Intervals in brackets: {self.method}.", ""]
        lines += [f"- {note}" for note in self.notes]
        for number, transcript in enumerate(self.transcripts, 1):
            lines += ["", f"## Example {number}"]
            for who, text in transcript.items():
                name = who.replace("_", "-")
                lines += ["", f"{name[0].upper()}{name[1:]}:", "", *(f"    {line}" for line in text.splitlines())]
        return "\n".join(lines) + "\n"


def write_comparison(directory: Path, report: ComparisonReport, title: str) -> list[Path]:
    """Write `compare.json` and `compare.md`, and return their paths.

    Args:
        directory: output directory.
        report: comparisons to write.
        title: title of the page.
    """
    files = [directory / "compare.json", directory / "compare.md"]
    write_json(files[0], report.to_json())
    write_text(files[1], report.to_markdown(title))
    return files
