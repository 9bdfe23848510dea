"""What differs between texts with one label and texts with several: targets, loss, scores, calibration.

Shape letters: E examples, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from groundup.data.labelled import Labelled
from groundup.evaluation.calibration import Calibration, fit_temperature, logarithms
from groundup.evaluation.classification import Floats, Indices, Result, compare, macro_f1, score
from groundup.evaluation.label_sets import compare_sets, macro_f1_of_sets, score_sets
from groundup.evaluation.stats import Interval
from groundup.train.objectives.classification import (
    Classification,
    SeveralLabels,
    balancing_weights,
    likely,
    positive_weights,
)

Metric = Literal["loss", "accuracy", "macro_f1"]
LabelObjective = Classification | SeveralLabels


@dataclass(frozen=True, slots=True)
class Measured:
    """Predictions that were scored.

    Attributes:
        named: each measure by its name; the first is how many texts got what they should.
        facts: for the artifact.
    """

    named: dict[str, Interval]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tested:
    """What came out on the test texts.

    Attributes:
        columns, rows: a table for a person.
        facts: for the artifact.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    verdict: str
    facts: dict[str, Any]


class Labelling(Protocol):
    """How texts are labelled; probabilities are (E, C)."""

    def targets(self, examples: Labelled) -> Any:
        """What `LabelledBatches` takes as labels."""
        ...

    def objective(self, targets: Any, *, smoothing: float, balance: bool) -> LabelObjective: ...

    def score(self, probabilities: Floats, targets: Any, metric: Metric) -> float:
        """By which states of a run are compared: less is better."""
        ...

    def temperature(self, probabilities: Floats, targets: Any) -> float: ...

    def calibration(self, probabilities: Floats, targets: Any, temperature: float, fitted_on: int) -> Calibration: ...

    def measured(self, tested: Labelled, probabilities: Floats) -> Measured:
        """Scored alone."""
        ...

    def tested(self, given: Labelled, tested: Labelled, probabilities: Floats, *, tfidf: bool) -> Tested:
        """Scored beside baselines that learn from `given`."""
        ...


def labelling(several: bool, labels: Sequence[str], seed: int) -> Labelling:
    """The one for texts with several labels, or with one."""
    return SeveralEach(labels, seed) if several else OneEach(labels, seed)


class OneEach:
    """Each text has one label; see `Labelling`."""

    def __init__(self, labels: Sequence[str], seed: int) -> None:
        self._labels, self._seed = labels, seed
        self._index = {label: number for number, label in enumerate(labels)}

    def targets(self, examples: Labelled) -> list[int]:
        return [self._index[label] for label in examples.labels]

    def objective(self, targets: Any, *, smoothing: float, balance: bool) -> LabelObjective:
        return Classification(smoothing, balancing_weights(targets, len(self._labels)) if balance else None)

    def score(self, probabilities: Floats, targets: Any, metric: Metric) -> float:
        true: Indices = np.asarray(targets)
        if metric == "loss":
            return -float(logarithms(probabilities[np.arange(len(true)), true]).mean())
        confusion = np.zeros((len(self._labels),) * 2, dtype=np.int64)
        np.add.at(confusion, (true, probabilities.argmax(1)), 1)
        return 1 - (macro_f1(confusion) if metric == "macro_f1" else float(np.trace(confusion) / len(true)))

    def temperature(self, probabilities: Floats, targets: Any) -> float:
        return fit_temperature(probabilities, np.asarray(targets))

    def calibration(self, probabilities: Floats, targets: Any, temperature: float, fitted_on: int) -> Calibration:
        return Calibration.of(probabilities, np.asarray(targets), temperature, fitted_on)

    def measured(self, tested: Labelled, probabilities: Floats) -> Measured:
        return _measured_one(self._result(tested, probabilities), len(tested))

    def _result(self, tested: Labelled, probabilities: Floats) -> Result:
        return score(self.targets(tested), probabilities.argmax(1), len(self._labels), seed=self._seed)

    def tested(self, given: Labelled, tested: Labelled, probabilities: Floats, *, tfidf: bool) -> Tested:
        result = self._result(tested, probabilities)
        beside = compare(given, tested, self._labels, result, tfidf=tfidf, seed=self._seed)
        facts = {"test": _measured_one(result, len(tested)).facts, **beside.to_json()}
        return Tested(("who", "accuracy", "macro-F1"), beside.rows(), beside.verdict(), facts)


class SeveralEach:
    """A text may have several labels; see `Labelling`."""

    def __init__(self, labels: Sequence[str], seed: int) -> None:
        self._labels, self._seed = labels, seed

    def targets(self, examples: Labelled) -> list[list[float]]:
        return [[float(label in labels) for label in self._labels] for labels in examples.sets]

    def objective(self, targets: Any, *, smoothing: float, balance: bool) -> LabelObjective:
        return SeveralLabels(positive_weights(targets) if balance else None)

    def score(self, probabilities: Floats, targets: Any, metric: Metric) -> float:
        true = np.asarray(targets) > 0
        if metric == "loss":
            return -float(logarithms(np.where(true, probabilities, 1 - probabilities)).mean())
        predicted = likely(probabilities)
        if metric == "accuracy":
            return 1 - float((true == predicted).all(1).mean())
        return 1 - macro_f1_of_sets(true, predicted)

    def temperature(self, probabilities: Floats, targets: Any) -> float:
        true = np.asarray(targets, dtype=np.int64).ravel()
        return fit_temperature(_as_pairs(probabilities), true, prior=len(self._labels))

    def calibration(self, probabilities: Floats, targets: Any, temperature: float, fitted_on: int) -> Calibration:
        true = np.asarray(targets, dtype=np.int64).ravel()
        return Calibration.of(_as_pairs(probabilities), true, temperature, fitted_on)

    def measured(self, tested: Labelled, probabilities: Floats) -> Measured:
        result = score_sets(np.asarray(self.targets(tested)) > 0, likely(probabilities), seed=self._seed)
        named = {"exact": result.exact, "micro-F1": result.micro_f1, "macro-F1": result.macro_f1}
        return Measured(named, {"examples": len(tested), **result.to_json()})

    def tested(self, given: Labelled, tested: Labelled, probabilities: Floats, *, tfidf: bool) -> Tested:
        learned, true = (np.asarray(self.targets(part)) > 0 for part in (given, tested))
        result = score_sets(true, likely(probabilities), seed=self._seed)
        beside = compare_sets(
            given.texts, learned, tested.texts, true, self._labels, result, tfidf=tfidf, seed=self._seed
        )
        facts = {"test": {"examples": len(tested), **result.to_json()}, **beside.to_json()}
        return Tested(("who", "exact", "micro-F1", "macro-F1"), beside.rows(), beside.verdict(), facts)


def _measured_one(result: Result, examples: int) -> Measured:
    facts = {"examples": examples, **result.to_json(), "confusion": result.confusion.tolist()}
    return Measured({"accuracy": result.accuracy, "macro-F1": result.macro_f1}, facts)


def _as_pairs(probabilities: Floats) -> Floats:
    """Each text with each label as a question of its own, (E·C, 2): no, yes."""
    yes = probabilities.reshape(-1)
    return np.stack([1 - yes, yes], axis=1)
