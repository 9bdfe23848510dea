"""Evaluation of single-label and multi-label classifiers: scores, calibration, and the final test after training.

Shape letters: E: number of examples, C: number of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from groundup.core.console import Console
from groundup.core.types import text_id
from groundup.data.labels.batches import Targets, label_targets
from groundup.data.labels.reading import Labeled
from groundup.evaluation.classifiers.calibration import Calibration, fit_temperature, safe_log
from groundup.evaluation.classifiers.multi_label import compare_sets, macro_f1_of_sets, score_sets
from groundup.evaluation.classifiers.single_label import (
    Floats,
    Indices,
    SingleLabelResult,
    compare_with_baselines,
    macro_f1,
    score,
)
from groundup.evaluation.stats import Interval
from groundup.hub.lexical import LEXICAL_FILE, LexicalHead
from groundup.hub.loading import MODEL_MAX_LENGTH, open_classifier
from groundup.inference.classification import (
    above_threshold,
    encode,
    last_hidden_states,
    predict,
    predict_from_states,
)
from groundup.inference.novelty import Novelty
from groundup.kernels import Machine, prepare_model
from groundup.model import SequenceClassifier
from groundup.tokenizer import Tokenizer
from groundup.train.classifier.initial_head import LabelLoss
from groundup.train.classifier.lexical_head import fit_lexical_head
from groundup.train.classifier.plan import ClassifierMetric, Throughput

_NUM_SAMPLES = 12  # Number of test texts that the report shows with their predictions.
_SAMPLE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Scores of predictions.

    Attributes:
        named: metrics, keyed by name, starting with the share of correctly predicted texts.
        facts: scores as JSON values for the artifact.
    """

    named: dict[str, Interval]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LabelComparison:
    """Scores of a classifier and of baselines.

    Attributes:
        columns: header of the table of scores.
        rows: rows of the table of scores.
        verdict: a sentence that compares the classifier with the baselines.
        facts: scores as JSON values for the artifact.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    verdict: str
    facts: dict[str, Any]


class LabelEvaluator(Protocol):
    """Scores predictions against true labels.

    In all methods, `probabilities` has shape (E, C), and `targets` is the result of `label_targets`.
    """

    def error(self, probabilities: Floats, targets: Targets, metric: ClassifierMetric) -> float:
        """Return the loss if `metric` is "loss", otherwise 1 minus the metric."""
        ...

    def temperature(self, probabilities: Floats, targets: Targets) -> float:
        """Fit the temperature that calibrates the probabilities, and return it."""
        ...

    def calibration(self, probabilities: Floats, targets: Targets, temperature: float, fitted_on: int) -> Calibration:
        """Return the calibration error before and after temperature scaling."""
        ...

    def scores(self, test: Labeled, probabilities: Floats) -> LabelScores:
        """Return the scores on the test set."""
        ...

    def compared(self, given: Labeled, test: Labeled, probabilities: Floats, *, tfidf: bool) -> LabelComparison:
        """Compare the predictions for `test` with baselines that are trained on `given`."""
        ...


def label_evaluator(multi_label: bool, labels: Sequence[str], seed: int) -> LabelEvaluator:
    """Return the evaluator for multi-label or single-label texts.

    Args:
        multi_label: True if a text may have any number of labels, False if it has exactly one.
        labels: name of each label, by index.
        seed: seed of the bootstrap.

    Returns:
        The evaluator.
    """
    return MultiLabelEvaluator(labels, seed) if multi_label else SingleLabelEvaluator(labels, seed)


class SingleLabelEvaluator:
    """Evaluates a single-label classifier; see `LabelEvaluator`."""

    def __init__(self, labels: Sequence[str], seed: int) -> None:
        self._labels, self._seed = labels, seed

    def error(self, probabilities: Floats, targets: Targets, metric: ClassifierMetric) -> float:
        """Return the loss if `metric` is "loss", otherwise 1 minus the metric."""
        true: Indices = np.asarray(targets)
        if metric == "loss":
            return -float(safe_log(probabilities[np.arange(len(true)), true]).mean())
        confusion = np.zeros((len(self._labels),) * 2, dtype=np.int64)
        np.add.at(confusion, (true, probabilities.argmax(1)), 1)
        return 1 - (macro_f1(confusion) if metric == "macro_f1" else float(np.trace(confusion) / len(true)))

    def temperature(self, probabilities: Floats, targets: Targets) -> float:
        """Fit the temperature that calibrates the probabilities, and return it."""
        return fit_temperature(probabilities, np.asarray(targets))

    def calibration(self, probabilities: Floats, targets: Targets, temperature: float, fitted_on: int) -> Calibration:
        """Return the calibration error before and after temperature scaling."""
        return Calibration.of(probabilities, np.asarray(targets), temperature, fitted_on)

    def scores(self, test: Labeled, probabilities: Floats) -> LabelScores:
        """Return the scores on the test set."""
        return _single_label_scores(self._result(test, probabilities), len(test))

    def compared(self, given: Labeled, test: Labeled, probabilities: Floats, *, tfidf: bool) -> LabelComparison:
        """Compare the predictions for `test` with baselines that are trained on `given`."""
        result = self._result(test, probabilities)
        baselines = compare_with_baselines(given, test, self._labels, result, tfidf=tfidf, seed=self._seed)
        facts = {"test": _single_label_scores(result, len(test)).facts, **baselines.to_json()}
        return LabelComparison(("model", "accuracy", "macro-F1"), baselines.rows(), baselines.verdict(), facts)

    def _result(self, test: Labeled, probabilities: Floats) -> SingleLabelResult:
        true: Any = label_targets(test, self._labels)
        return score(true, probabilities.argmax(1), len(self._labels), seed=self._seed)


class MultiLabelEvaluator:
    """Evaluates a multi-label classifier; see `LabelEvaluator`."""

    def __init__(self, labels: Sequence[str], seed: int) -> None:
        self._labels, self._seed = labels, seed

    def error(self, probabilities: Floats, targets: Targets, metric: ClassifierMetric) -> float:
        """Return the loss if `metric` is "loss", otherwise 1 minus the metric."""
        true = np.asarray(targets) > 0
        if metric == "loss":
            return -float(safe_log(np.where(true, probabilities, 1 - probabilities)).mean())
        predicted = above_threshold(probabilities)
        if metric == "accuracy":
            return 1 - float((true == predicted).all(1).mean())
        return 1 - macro_f1_of_sets(true, predicted)

    def temperature(self, probabilities: Floats, targets: Targets) -> float:
        """Fit the temperature that calibrates the probabilities, and return it."""
        true = np.asarray(targets, dtype=np.int64).ravel()
        return fit_temperature(_as_pairs(probabilities), true, prior=len(self._labels))

    def calibration(self, probabilities: Floats, targets: Targets, temperature: float, fitted_on: int) -> Calibration:
        """Return the calibration error before and after temperature scaling."""
        true = np.asarray(targets, dtype=np.int64).ravel()
        return Calibration.of(_as_pairs(probabilities), true, temperature, fitted_on)

    def scores(self, test: Labeled, probabilities: Floats) -> LabelScores:
        """Return the scores on the test set."""
        result = score_sets(self._true(test), above_threshold(probabilities), seed=self._seed)
        named = {"exact": result.exact, "micro-F1": result.micro_f1, "macro-F1": result.macro_f1}
        return LabelScores(named, {"examples": len(test), **result.to_json()})

    def compared(self, given: Labeled, test: Labeled, probabilities: Floats, *, tfidf: bool) -> LabelComparison:
        """Compare the predictions for `test` with baselines that are trained on `given`."""
        given_EC, test_EC = self._true(given), self._true(test)
        result = score_sets(test_EC, above_threshold(probabilities), seed=self._seed)
        baselines = compare_sets(
            given.texts, given_EC, test.texts, test_EC, self._labels, result, tfidf=tfidf, seed=self._seed
        )
        facts = {"test": {"examples": len(test), **result.to_json()}, **baselines.to_json()}
        columns = ("model", "exact", "micro-F1", "macro-F1")
        return LabelComparison(columns, baselines.rows(), baselines.verdict(), facts)

    def _true(self, examples: Labeled) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.asarray(label_targets(examples, self._labels)) > 0


def _single_label_scores(result: SingleLabelResult, examples: int) -> LabelScores:
    facts = {"examples": examples, **result.to_json(), "confusion": result.confusion.tolist()}
    return LabelScores({"accuracy": result.accuracy, "macro-F1": result.macro_f1}, facts)


def _as_pairs(probabilities: Floats) -> Floats:
    """Return the probabilities that a text does not have and has a label, for each (text, label) pair; (E*C, 2)."""
    yes = probabilities.reshape(-1)
    return np.stack([1 - yes, yes], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedExamples:
    """Labeled texts as token ids.

    Attributes:
        examples: the texts and labels.
        ids: token ids of each text.
        n_truncated: number of truncated texts.
        targets: targets for the loss; see `label_targets`.
    """

    examples: Labeled
    ids: Sequence[Sequence[int]]
    n_truncated: int
    targets: Targets

    @classmethod
    def of(cls, examples: Labeled, labels: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> EncodedExamples:
        """Tokenize texts and convert their labels to targets."""
        return cls(examples, *encode(tokenizer, examples.texts, max_tokens), label_targets(examples, labels))

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, chosen: Sequence[int]) -> EncodedExamples:
        """Return the examples with the indices `chosen`, in the order of `chosen`."""
        targets: Any = [self.targets[i] for i in chosen]
        return replace(self, examples=self.examples.only(chosen), ids=[self.ids[i] for i in chosen], targets=targets)


@dataclass(frozen=True, slots=True, eq=False)
class LabelTask:
    """Labeled texts of a run of `groundup finetune classify`, split into training, validation and test sets.

    Attributes:
        labels: name of each label, by index.
        given: texts of the training set and the validation set together. The baselines are trained on them.
        train: training set.
        validation: validation set.
        test: test set.
        tokenizer: tokenizer of the model.
        max_tokens: maximum number of tokens per text.
        seed: seed of the bootstrap.
    """

    labels: list[str]
    given: Labeled
    train: EncodedExamples
    validation: EncodedExamples
    test: EncodedExamples
    tokenizer: Tokenizer
    max_tokens: int
    seed: int

    @classmethod
    def of(
        cls,
        given: Labeled,
        parts: tuple[Labeled, Labeled, Labeled],
        tokenizer: Tokenizer,
        max_tokens: int,
        *,
        seed: int,
    ) -> LabelTask:
        """Tokenize the training, validation and test sets, and return the task."""
        labels = list(given.counts())
        train, validation, test = (EncodedExamples.of(part, labels, tokenizer, max_tokens) for part in parts)
        return cls(labels, given, train, validation, test, tokenizer, max_tokens, seed)

    @property
    def evaluator(self) -> LabelEvaluator:
        """Evaluator for the labels of this task."""
        return label_evaluator(self.given.multi_label, self.labels, self.seed)

    def validation_error(self, model: SequenceClassifier, metric: ClassifierMetric) -> float:
        """Return the loss on the validation set if `metric` is "loss", otherwise 1 minus the metric."""
        return self.evaluator.error(self._predict(model, self.validation), self.validation.targets, metric)

    def throughput(self, seconds_per_token: float) -> Throughput:
        """Return the throughput estimate from which the training plan for a time budget is computed.

        Args:
            seconds_per_token: duration of a forward pass divided by its number of tokens.

        Returns:
            The estimate, with the number of tokens in the validation set and the test set.
        """
        evaluated = sum(len(text) for part in (self.validation, self.test) for text in part.ids)
        return Throughput(seconds_per_token, evaluated, sum(map(len, self.train.ids)) / len(self.train))

    def fit_lexical_head(self, model: SequenceClassifier, loss: LabelLoss) -> LexicalHead | None:
        """Fit a lexical head to the training set.

        The method returns None if a text may have several labels or if the training texts have no words.
        """
        if self.given.multi_label:
            return None
        states = last_hidden_states(model, self.train.ids, pad_id=self.tokenizer.pad_id)
        return fit_lexical_head(states, self.train.examples.texts, self.train.targets, loss, len(self.labels))

    def fit_temperature(self, model: SequenceClassifier, lexical: LexicalHead | None = None) -> float:
        """Return the temperature that calibrates a head on the validation set; 1 if the validation set is empty.

        Args:
            model: classifier.
            lexical: lexical head to calibrate; default: the classification head of `model`.

        Returns:
            The temperature.
        """
        if not len(self.validation):
            return 1.0
        return self.evaluator.temperature(self._predict(model, self.validation, lexical), self.validation.targets)

    def _predict(self, model: SequenceClassifier, part: EncodedExamples, lexical: LexicalHead | None = None) -> Floats:
        pad_id = self.tokenizer.pad_id
        if lexical is None:
            return predict(model, part.ids, pad_id=pad_id)
        return lexical.probabilities(last_hidden_states(model, part.ids, pad_id=pad_id), part.examples.texts)

    def samples(self, model: SequenceClassifier, lexical: LexicalHead | None = None) -> list[dict[str, Any]]:
        """Return a few test texts with their predictions. Texts are chosen in the order of their hashes."""
        test = self.test.examples
        chosen = sorted(range(len(test)), key=lambda i: text_id(test.texts[i]))[:_NUM_SAMPLES]
        probabilities = self._predict(model, self.test.only(chosen), lexical)
        return [
            {
                "text": test.texts[i][:_SAMPLE_CHARACTERS],
                "label": ", ".join(test.sets[i]),
                "predicted": ", ".join(self._predicted(probabilities_C)),
                "probability": float(probabilities_C.max()),
            }
            for i, probabilities_C in zip(chosen, probabilities, strict=True)
        ]

    def _predicted(self, probabilities_C: Floats) -> list[str]:
        if not self.given.multi_label:
            return [self.labels[probabilities_C.argmax()]]
        return [self.labels[index] for index in above_threshold(probabilities_C).nonzero()[0]]

    def facts(self) -> dict[str, Any]:
        """Return facts about the data, such as label counts and truncated texts, for the artifact."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        dropped = {f"test: {reason}": count for reason, count in self.test.examples.dropped.items()}
        truncated = {"train": self.train.n_truncated, "test": self.test.n_truncated, "max_tokens": self.max_tokens}
        return {
            "columns": self.given.columns,
            "labels": self.labels,
            "counts": {name: part.examples.counts() for name, part in parts.items()},
            "dropped": dict(self.given.dropped) | dropped,
            "cut": truncated,
        }


def save_and_test(
    task: LabelTask,
    out: Path,
    model: SequenceClassifier,
    save: Callable[[], list[Path]],
    machine: Machine,
    console: Console,
    *,
    tfidf: bool,
    lexical_loss: LabelLoss | None = None,
) -> tuple[list[Path], dict[str, Any]]:
    """Save a classifier, calibrate it on the validation set, and test the saved files.

    Args:
        task: texts and labels.
        out: directory of the model.
        model: trained classifier.
        save: function that writes `model` to `out` and returns the written files.
        machine: device and dtype. The test uses the same dtype as training.
        console: console that prints the scores.
        tfidf: whether to compare with logistic regression on TF-IDF features.
        lexical_loss: loss for fitting a lexical head on the frozen base model; default: no lexical head is fitted.

    Returns:
        The written files, and the facts for the artifact.
    """
    files = save()
    task.tokenizer.config[MODEL_MAX_LENGTH] = task.max_tokens
    task.tokenizer.save(out)
    placed = _placed(open_classifier(out, device="cpu").model, machine)
    lexical = task.fit_lexical_head(placed, lexical_loss) if lexical_loss is not None else None
    temperature = 1.0
    if len(task.validation):
        temperature = task.fit_temperature(placed)
        model.apply_temperature(temperature)
        files = save()
    if lexical is not None:
        temperature = task.fit_temperature(placed, lexical)
        lexical = lexical.softened(temperature)
        files = [*files, lexical.save(out)]
    saved = open_classifier(out, device="cpu").model
    samples = task.samples(saved, lexical)  # The saved model is still in float32 here.
    facts = task.facts() | {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    facts |= _test(task, _placed(saved, machine), lexical, temperature, console, tfidf=tfidf)
    novelty = Novelty.fit(task.given.texts, seed=task.seed).with_held_out(task.test.examples.texts)
    console.note(novelty.sentence)
    facts |= {"novelty": novelty.to_json(), "samples": samples}
    return [*files, out / "tokenizer.json", out / "tokenizer_config.json", novelty.save(out)], facts


def _test(
    task: LabelTask,
    model: SequenceClassifier,
    lexical: LexicalHead | None,
    temperature: float,
    console: Console,
    *,
    tfidf: bool,
) -> dict[str, Any]:
    """Print the scores on the test set next to the baselines, and return them for the artifact.

    Args:
        task: texts and labels.
        model: saved classifier.
        lexical: lexical head, or None if the classification head of `model` predicts the labels.
        temperature: temperature by which the logits of the head were divided.
        console: console that prints the scores.
        tfidf: whether to compare with logistic regression on TF-IDF features.

    Returns:
        The scores.
    """
    test, evaluator = task.test, task.evaluator
    alone: dict[str, Any] = {}
    with console.progress("testing", len(test), "texts") as bar:
        pad_id, advance = task.tokenizer.pad_id, bar.advance
        if lexical is None:
            probabilities = predict(model, test.ids, pad_id=pad_id, advance=advance)
        else:
            states = last_hidden_states(model, test.ids, pad_id=pad_id, advance=advance)
            probabilities = lexical.probabilities(states, test.examples.texts)
            by_model = predict_from_states(model, states)
            alone = {"model_alone": evaluator.scores(test.examples, by_model).facts}
    result = evaluator.compared(task.given, test.examples, probabilities, tfidf=tfidf)
    console.table("On the test texts (95 % intervals)", result.columns, result.rows)
    console.note(result.verdict)
    calibration = evaluator.calibration(probabilities, test.targets, temperature, len(task.validation))
    console.note(calibration.sentence)
    if alone:
        accuracy = alone["model_alone"]["accuracy"]["value"]
        console.note(f"Accuracy without {LEXICAL_FILE}, as transformers loads the model: {accuracy:.1%}.")
    return {"calibration": calibration.to_json(), **result.facts, **alone}


def _placed(model: SequenceClassifier, machine: Machine) -> SequenceClassifier:
    """Move a saved classifier to the device and dtype of training, and return it."""
    prepare_model(model, replace(machine, compile=False, fp8=False))
    return model
