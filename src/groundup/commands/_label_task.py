"""Labelled texts as they are learned and tested, and the classifier that is left: fitted, tested as a user gets it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.console import Console

if TYPE_CHECKING:
    from groundup.data.labelled import Labelled
    from groundup.evaluation.classification import Floats
    from groundup.evaluation.labelling import Labelling, Metric
    from groundup.kernels import Machine
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
        from groundup.train.objectives.classification import predict

        said = predict(model, self.deciding.ids, pad_id=self.tokenizer.pad_id)
        return self.kind.score(said, self.deciding.targets, metric)


def leave_classifier(
    task: LabelTask,
    out: Path,
    model: SequenceClassifier,
    saving: Callable[[], list[Path]],
    machine: Machine,
    console: Console,
    *,
    tfidf: bool,
    seed: int,
) -> tuple[list[Path], dict[str, Any]]:
    """Save the classifier, fit its probabilities on the texts set apart, and test what is saved.

    The test computes in the dtype that the machine is faster in, as training does.

    Returns:
        Its files, and what was found.
    """
    from groundup.hub.resolve import MODEL_MAX_LENGTH, open_classifier
    from groundup.train.objectives.classification import predict
    from groundup.train.objectives.novelty import Novelty

    kind, tokenizer, tested = task.kind, task.tokenizer, task.tested
    files = saving()
    tokenizer.config[MODEL_MAX_LENGTH] = task.longest
    tokenizer.save(out)
    saved = open_classifier(out, device="cpu").model
    temperature = 1.0
    if len(task.deciding):
        said = predict(_placed(saved, machine), task.deciding.ids, pad_id=tokenizer.pad_id)
        temperature = kind.temperature(said, task.deciding.targets)
        model.soften(temperature)
        files = saving()
        saved = open_classifier(out, device="cpu").model
    samples = _samples(task, saved)
    saved = _placed(saved, machine)
    with console.progress("testing", len(tested), "texts") as bar:
        probabilities = predict(saved, tested.ids, pad_id=tokenizer.pad_id, advance=bar.advance)
    result = kind.tested(task.given, tested.examples, probabilities, tfidf=tfidf)
    console.table("On the test texts (95 % intervals)", result.columns, result.rows)
    console.note(result.verdict)
    calibration = kind.calibration(probabilities, tested.targets, temperature, len(task.deciding))
    console.note(calibration.sentence)
    novelty = Novelty.fit(task.given.texts, seed=seed).tested(tested.examples.texts)
    console.note(novelty.sentence)
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
        "novelty": novelty.to_json(),
        **result.facts,
        "samples": samples,
    }
    return [*files, out / "tokenizer.json", out / "tokenizer_config.json", novelty.save(out)], found


def _placed(model: SequenceClassifier, machine: Machine) -> SequenceClassifier:
    """The saved classifier, computing as training does: in bf16 where the machine is faster in it."""
    from groundup.kernels import place

    place(model, replace(machine, compile=False, fp8=False))
    return model


def came_apart(before: float, after: float, texts: int) -> bool:
    """Whether tuning has unlearned what the fitted head could tell, beyond chance.

    Args:
        before, after: share of the texts set apart that did, and do, not get their labels.
    """
    chance = 2 * math.sqrt((before * (1 - before) + after * (1 - after)) / texts)  # two standard errors
    return after - before > chance


def _samples(task: LabelTask, model: SequenceClassifier) -> list[dict[str, Any]]:
    """Some test texts with predictions in fp32: the first in the order of their hash, so none is picked by hand."""
    from groundup.core.types import text_id
    from groundup.train.objectives.classification import predict

    tested, labels = task.tested.examples, task.labels
    chosen = sorted(range(len(tested)), key=lambda i: text_id(tested.texts[i]))[:_SAMPLES]
    probabilities = predict(model, [task.tested.ids[i] for i in chosen], pad_id=task.tokenizer.pad_id)
    return [
        {
            "text": tested.texts[i][:_SAMPLE_CHARACTERS],
            "label": ", ".join(tested.sets[i]),
            **_predicted(labels, shares, tested.several),
        }
        for i, shares in zip(chosen, probabilities, strict=True)
    ]


def _predicted(labels: list[str], probabilities: Floats, several: bool) -> dict[str, Any]:
    from groundup.train.objectives.classification import likely

    chosen = [labels[n] for n in likely(probabilities).nonzero()[0]] if several else [labels[probabilities.argmax()]]
    return {"predicted": ", ".join(chosen), "probability": float(probabilities.max())}
