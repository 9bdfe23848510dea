"""Labels before and after: a base that is asked sees no tested text; what it writes is read as the labels it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from groundup.core.console import Console
from groundup.core.types import Example
from groundup.data.labelled import SEPARATOR, Labelled
from groundup.evaluation import before_after_labels
from groundup.evaluation.asking import Asked, Way
from groundup.evaluation.before_after_labels import compare_labels
from groundup.hub.resolve import OpenedClassifier
from groundup.model import SequenceClassifier

QUIET = Console(quiet=True)
TOPICS = ("statement", "expression", "module", "value")


def classifier(asked: Asked, names: Sequence[str], *, several: bool) -> OpenedClassifier:
    head = SequenceClassifier.from_language_model(asked.model, len(names), seed=0)
    head.multi_label = several
    return OpenedClassifier(Path("classifier"), head, asked.tokenizer, tuple(names), 64)


def written(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Example], str]) -> list[Way]:
    """Let a base write these answers; the ways that it is asked in."""
    ways: list[Way] = []

    def write(asked: Asked, way: Way, examples: Sequence[Example], max_tokens: int) -> list[str]:
        ways.append(way)
        return [answer(example) for example in examples]

    monkeypatch.setattr(before_after_labels, "write_answers", write)
    return ways


def test_a_base_that_is_asked_for_labels_is_shown_no_tested_text(
    asked: Asked, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of a classifier are known without any answer; more of them than are scored each are written."""
    ways = written(monkeypatch, lambda example: "no label")
    names = [f"{topic} {number}" for topic in TOPICS for number in range(4)]
    tested = Labelled(texts[:6], names[:6])
    found = compare_labels(asked, classifier(asked, names, several=False), Labelled([], []), tested, QUIET)
    assert all(not way.shots and way.hint.endswith("value 3.") for way in ways) and ways
    assert "for want of training texts" in found.notes[0] and "best way" not in found.notes[0]


def test_several_labels_are_read_out_of_what_a_base_writes(
    asked: Asked, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order, in other letters, with words that are no labels, and labels with commas of their own."""
    names = ("oil, gas", "gas", "Wheat", "trade")
    sets = [("gas", "oil, gas"), ("Wheat",), ("gas", "trade"), ("oil, gas", "trade")] * 6
    said = dict(zip(texts, ["oil, gas; gas", "wheat, and so on", "trade\nGas", "trade, oil, gas"] * 6, strict=False))
    ways = written(monkeypatch, lambda example: said[example.messages[-2].content])
    every = Labelled(texts[:24], [SEPARATOR.join(labels) for labels in sets], multi_label=True)
    learned, tested = every.only(range(12)), every.only(range(12, 24))
    found = compare_labels(asked, classifier(asked, names, several=True), learned, tested, QUIET)
    assert [line.before.name for line in found.lines] == ["exact sets", "micro-F1", "macro-F1"]
    assert [line.before.estimate for line in found.lines] == [100.0, 100.0, 100.0]
    assert [name.split()[0] for name in found.lines[0].beside] == ["always", "TF-IDF"]
    assert "what it writes" in found.notes[0]
    hints = {way.hint for way in ways} - {""}
    assert hints <= {"Answer with those of these that fit, with commas between: oil, gas, gas, Wheat, trade."}


def test_a_classifier_of_several_labels_gives_all_that_are_likelier_than_not(asked: Asked, texts: list[str]) -> None:
    """And one that gives a single label, beside it, gives that."""
    both = classifier(asked, TOPICS, several=True)
    with torch.no_grad():
        both.model.score.weight.zero_()  # every label has a probability of one half: likely enough
    tested = Labelled(texts[:8], [SEPARATOR.join(sorted(TOPICS))] * 8, multi_label=True)
    single = classifier(asked, TOPICS, several=False)
    exact, micro, _ = compare_labels(single, both, Labelled([], []), tested, QUIET).lines
    assert (exact.before.estimate, exact.after.estimate) == (0, 100)
    assert (micro.before.estimate, micro.after.estimate) == (pytest.approx(40), 100)
