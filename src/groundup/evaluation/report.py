"""Report of an evaluation on text, and the files of an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from groundup.core.files import write_json, write_text
from groundup.core.markdown import markdown_table
from groundup.evaluation.comparisons.examples import Comparison
from groundup.evaluation.compressors import CompressorScore
from groundup.evaluation.stats import Interval

FORMAT_VERSION = 1
Verdict = Literal["the model", "the compressor", "not distinguishable"]


class EvaluationResult(Protocol):
    """The result of an evaluation."""

    @property
    def items(self) -> Sequence[Mapping[str, Any]]:
        """Results of each example as JSON values, or nothing if the result has no examples."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        ...

    def to_markdown(self) -> str:
        """Return the result as a Markdown page."""
        ...


def write_evaluation(directory: Path, evaluation: EvaluationResult) -> list[Path]:
    """Write `report.json`, `report.md` and, if there are examples, `items.jsonl` with one line per example.

    Args:
        directory: output directory.
        evaluation: result to write.

    Returns:
        The files written.
    """
    files = [directory / "report.json", directory / "report.md"]
    write_json(files[0], evaluation.to_json())
    write_text(files[1], evaluation.to_markdown())
    if evaluation.items:
        files.append(directory / "items.jsonl")
        write_text(files[2], "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in evaluation.items))
    return files


@dataclass(frozen=True, slots=True)
class Sample:
    """A generated text with its prompt and seed."""

    prompt: str
    text: str
    finish_reason: str
    seed: int


@dataclass(frozen=True, slots=True)
class Report:
    """Results of one model on text.

    Attributes:
        bpb: bits per byte with its bootstrap interval.
        scored: facts about the scored text: its `source`, and the numbers of `documents`, `tokens` and `bytes`.
        compressors: scores of compressors on the same text.
        compressors_read: number of bytes of training text that the compressors were given before the scored text.
        samples: generated texts.
        model: facts about the model: the number of `parameters`, the shape, and facts about its training.
        next_commands: commands that are suggested as the next step.
        began_from: comparison with the base model if this model was trained by continued pretraining, otherwise None.
    """

    items: ClassVar[Sequence[Mapping[str, Any]]] = ()

    bpb: Interval
    scored: Mapping[str, Any]
    compressors: Sequence[CompressorScore]
    compressors_read: int
    samples: Sequence[Sample]
    model: Mapping[str, Any]
    next_commands: Sequence[str]
    began_from: Comparison | None = None

    def verdict(self, score: CompressorScore) -> Verdict:
        """Return whether the model or a compressor predicts the text better.

        The verdict is "not distinguishable" if the score of the compressor is in the model's interval.
        """
        if score.bpb > self.bpb.high:
            return "the model"
        return "the compressor" if score.bpb < self.bpb.low else "not distinguishable"

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the table rows, sorted by bits per byte in ascending order.

        The columns are the name of a model or compressor, its bits per byte, and whether this model or the model or
        compressor in the row is better.
        """
        low, high = _number(self.bpb.low), _number(self.bpb.high)
        ours = (f"this model ({self.bpb.level:.0%}: {low} to {high})", _number(self.bpb.estimate), "")
        rows = [(self.bpb.estimate, ours)]
        if self.began_from is not None:
            before = self.began_from.before.estimate
            rows.append((before, ("its base model", _number(before), self._verdict_on_base())))
        for score in self.compressors:
            rows.append((score.bpb, (score.label, _number(score.bpb), self.verdict(score))))
        return [row for _, row in sorted(rows, key=lambda item: item[0])]

    def _verdict_on_base(self) -> str:
        assert self.began_from is not None
        return {"better": "the model", "worse": "its base model"}.get(self.began_from.verdict, "not distinguishable")

    def summary(self) -> str:
        """Return one or two sentences that report the bits per byte and the comparisons."""
        return " ".join([self._summary(), *([self.began_from.sentence] if self.began_from else [])])

    def _summary(self) -> str:
        rivals = [score for score in self.compressors if score.saw_training]
        if not rivals:
            return f"{_number(self.bpb.estimate)} bits per byte; not compared with compressors."
        beaten = [score.name for score in rivals if self.verdict(score) == "the model"]
        others = [score.name for score in rivals if self.verdict(score) != "the model"]
        parts = [f"better than {_listed(beaten)}"] if beaten else []
        parts += [f"not better than {_listed(others)}"] if others else []
        verdict = ", ".join(parts)
        return f"{_number(self.bpb.estimate)} bits per byte: {verdict} after the training text."

    def facts(self) -> dict[str, Any]:
        """Return the main results for the artifact."""
        return {
            "bpb": self.bpb.estimate,
            "bpb_interval": self.bpb.bounds,
            "compressors": {score.label: score.bpb for score in self.compressors},
            **({"began_from": self.began_from.facts()} if self.began_from else {}),
            **self.scored,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values.

        If only one window was scored, the bounds of the interval are infinite and are written as null.
        """
        return {
            "format_version": FORMAT_VERSION,
            "summary": self.summary(),
            "bpb": self.bpb.estimate,
            "bpb_interval": self.bpb.bounds,
            "interval_level": self.bpb.level,
            "scored": dict(self.scored),
            "compressors": [asdict(score) | {"better": self.verdict(score)} for score in self.compressors],
            "compressors_read_bytes": self.compressors_read,
            "began_from": self.began_from.facts() if self.began_from else None,
            "samples": [asdict(sample) for sample in self.samples],
            "model": dict(self.model),
            "next": list(self.next_commands),
        }

    def to_markdown(self) -> str:
        """Return the report as a Markdown page."""
        scored = self.scored
        counts = ", ".join(f"{scored[unit]:,} {unit}" for unit in ("documents", "bytes", "tokens"))
        lines = [
            "# Evaluation",
            "",
            self.summary(),
            "",
            markdown_table((f"on {scored['source']}", "bits per byte", "better"), self.rows(), "lrl"),
            f"Scored: {scored['source']}, {counts}. Each document was scored once, starting from BOS, in "
            "non-overlapping windows.",
        ]
        if self.compressors_read:
            lines.append(f"The compressors were first given {self.compressors_read:,} bytes of training text.")
        model = [(name.replace("_", " "), _shown(value)) for name, value in self.model.items()]
        lines += ["", "## The model", "", markdown_table(("", ""), model).rstrip()]
        for number, sample in enumerate(self.samples, 1):
            lines += ["", f"## Sample {number}", "", *_quoted(sample)]
        lines += ["", "## Next", "", *(f"    {command}" for command in self.next_commands)]
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "?"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _quoted(sample: Sample) -> list[str]:
    """Return the sample as an indented block, in which Markdown syntax is shown literally."""
    lines = (sample.prompt + "⟦" + sample.text + "⟧").split("\n")
    start = "The text before ⟦ is the prompt" if sample.prompt else "Without a prompt"
    return [f"{start} (seed {sample.seed}):", "", *(f"    {line}" for line in lines)]
