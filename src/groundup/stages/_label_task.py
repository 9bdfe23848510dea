"""Labelled texts as they are learned and tested, and the classifier that is left: fitted, tested as a user gets it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.console import Console

if TYPE_CHECKING:
    from groundup.evals.classification import Floats
    from groundup.evals.labelling import Labelling, Metric
    from groundup.examples.labelled import Labelled
    from groundup.model import SequenceClassifier
    from groundup.tokenizer import Tokenizer

_SAMPLES = 12  # of test texts in the facts, for the report
_SAMPLE_CHARACTERS = 300


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Labelled texts as the model reads them.

    Attributes:
        ids: token ids of each text; `cut` of them have lost their end.
        targets: the labels, as `LabelledBatches` takes them.
    """

    examples: Labelled
    ids: Sequence[Sequence[int]]
    cut: int
    targets: Any

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class LabelTask:
    """What is learned, and on what it is decided and tested.

    Attributes:
        kind: how texts are labelled: with one label, or with several.
        given: the texts of `learned` and `deciding`; baselines learn from all of them.
        longest: tokens of the longest text.
    """

    kind: Labelling
    labels: list[str]
    given: Labelled
    learned: Read
    deciding: Read
    tested: Read
    tokenizer: Tokenizer
    longest: int

    def missed(self, model: Any, metric: Metric) -> float:
        """A score of the texts set apart: less is better."""
        from groundup.objectives.classification import predict

        said = predict(model, self.deciding.ids, pad_id=self.tokenizer.pad_id)
        return self.kind.score(said, self.deciding.targets, metric)


def leave_classifier(
    task: LabelTask,
    out: Path,
    model: SequenceClassifier,
    saving: Callable[[], list[Path]],
    device: str,
    console: Console,
    *,
    tfidf: bool,
) -> tuple[list[Path], dict[str, Any]]:
    """Save the classifier, fit its probabilities on the texts set apart, and test what a user gets: from disk, in fp32.

    Returns:
        Its files, and what was found.
    """
    from groundup.checkpoint.resolve import MODEL_MAX_LENGTH, open_classifier
    from groundup.objectives.classification import predict

    kind, tokenizer, tested = task.kind, task.tokenizer, task.tested
    files = saving()
    tokenizer.config[MODEL_MAX_LENGTH] = task.longest
    tokenizer.save(out)
    saved = open_classifier(out, device=device)
    temperature = 1.0
    if len(task.deciding):
        said = predict(saved.model, task.deciding.ids, pad_id=tokenizer.pad_id)
        temperature = kind.temperature(said, task.deciding.targets)
        model.soften(temperature)
        files = saving()
        saved = open_classifier(out, device=device)
    with console.progress("testing", len(tested), "texts") as bar:
        probabilities = predict(saved.model, tested.ids, pad_id=tokenizer.pad_id, advance=bar.advance)
    result = kind.tested(task.given, tested.examples, probabilities, tfidf=tfidf)
    console.table("On the test texts (95 % intervals)", result.columns, result.rows)
    console.note(result.verdict)
    calibration = kind.calibration(probabilities, tested.targets, temperature, len(task.deciding))
    console.note(calibration.sentence)
    parts = {"train": task.learned, "set_apart": task.deciding, "test": tested}
    dropped = {f"test: {reason}": count for reason, count in tested.examples.dropped.items()}
    found = {
        "columns": task.given.columns,
        "labels": task.labels,
        "counts": {name: part.examples.counts() for name, part in parts.items()},
        "dropped": dict(task.given.dropped) | dropped,
        "cut": {"train": task.learned.cut, "test": tested.cut, "max_tokens": task.longest},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "calibration": calibration.to_json(),
        **result.facts,
        "samples": _samples(tested.examples, task.labels, probabilities),
    }
    return [*files, out / "tokenizer.json", out / "tokenizer_config.json"], found


def came_apart(before: float, after: float, texts: int) -> bool:
    """Whether tuning has unlearned what the fitted head could tell, beyond chance.

    Args:
        before, after: share of the texts set apart that did, and do, not get their labels.
    """
    chance = 2 * math.sqrt((before * (1 - before) + after * (1 - after)) / texts)  # two standard errors
    return after - before > chance


def _samples(tested: Labelled, labels: list[str], probabilities: Floats) -> list[dict[str, Any]]:
    """Some test texts with their predictions: the first in the order of their hash, so that none is picked by hand."""
    from groundup.types import text_id

    chosen = sorted(range(len(tested)), key=lambda i: text_id(tested.texts[i]))[:_SAMPLES]
    return [
        {
            "text": tested.texts[i][:_SAMPLE_CHARACTERS],
            "label": ", ".join(tested.sets[i]),
            **_predicted(labels, probabilities[i], tested.several),
        }
        for i in chosen
    ]


def _predicted(labels: list[str], probabilities: Floats, several: bool) -> dict[str, Any]:
    from groundup.objectives.classification import likely

    chosen = [labels[n] for n in likely(probabilities).nonzero()[0]] if several else [labels[probabilities.argmax()]]
    return {"predicted": ", ".join(chosen), "probability": float(probabilities.max())}
