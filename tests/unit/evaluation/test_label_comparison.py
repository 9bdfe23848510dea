"""Comparison of labels: a prompted base model sees no test text, and its answers are parsed as labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from groundup.core.console import Console
from groundup.core.types import Example
from groundup.data.held_out import HeldOut
from groundup.data.labels.reading import SEPARATOR, Labeled
from groundup.evaluation.comparisons import classifiers as label_comparison
from groundup.evaluation.comparisons.classifiers import compare_labels
from groundup.evaluation.prompt_search import FewShotPrompt, PromptedModel
from groundup.hub.loading import OpenedClassifier
from groundup.model import SequenceClassifier

QUIET = Console(quiet=True)
TOPICS = ("statement", "expression", "module", "value")


def classifier(prompted: PromptedModel, names: Sequence[str], *, several: bool) -> OpenedClassifier:
    head = SequenceClassifier.from_language_model(prompted.model, len(names), seed=0)
    head.multi_label = several
    return OpenedClassifier(Path("classifier"), head, prompted.tokenizer, tuple(names), 64)


def written(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Example], str]) -> list[FewShotPrompt]:
    """Replace the answers of a base model, and return the prompts that it receives."""
    prompts: list[FewShotPrompt] = []

    def write(
        prompted: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example], max_tokens: int
    ) -> list[str]:
        prompts.append(prompt)
        return [answer(example) for example in examples]

    monkeypatch.setattr(label_comparison, "generate_answers", write)
    return prompts


def test_prompts_for_labels_contain_no_test_text(
    prompted: PromptedModel, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more labels than are scored, the model generates the label."""
    prompts = written(monkeypatch, lambda example: "no label")
    names = [f"{topic} {number}" for topic in TOPICS for number in range(4)]
    tested = Labeled(texts[:6], names[:6])
    found = compare_labels(
        prompted, classifier(prompted, names, several=False), HeldOut(Labeled([], []), tested), QUIET
    )
    assert all(not prompt.shots and prompt.instruction.endswith("value 3.") for prompt in prompts) and prompts
    assert "no training texts" in found.notes[0] and "best prompt" not in found.notes[0]


def test_label_sets_are_parsed_from_generated_text(
    prompted: PromptedModel, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order and case, with words that are no labels, and with labels that contain commas."""
    names = ("oil, gas", "gas", "Wheat", "trade")
    sets = [("gas", "oil, gas"), ("Wheat",), ("gas", "trade"), ("oil, gas", "trade")] * 6
    said = dict(zip(texts, ["oil, gas; gas", "wheat, and so on", "trade\nGas", "trade, oil, gas"] * 6, strict=False))
    prompts = written(monkeypatch, lambda example: said[example.messages[-2].content])
    every = Labeled(texts[:24], [SEPARATOR.join(labels) for labels in sets], multi_label=True)
    learned, tested = every.only(range(12)), every.only(range(12, 24))
    found = compare_labels(prompted, classifier(prompted, names, several=True), HeldOut(learned, tested), QUIET)
    assert [line.before.name for line in found.comparisons] == ["exact sets", "micro-F1", "macro-F1"]
    assert [line.before.estimate for line in found.comparisons] == [100.0, 100.0, 100.0]
    assert [name.split()[0] for name in found.comparisons[0].baselines] == ["always", "TF-IDF"]
    assert "the generated text" in found.notes[0]
    instructions = {prompt.instruction for prompt in prompts} - {""}
    assert instructions <= {"Answer with those of these that fit, with commas between: oil, gas, gas, Wheat, trade."}


def test_a_multi_label_classifier_predicts_all_labels_above_the_threshold(
    prompted: PromptedModel, texts: list[str]
) -> None:
    """A single-label classifier next to it predicts one label."""
    both = classifier(prompted, TOPICS, several=True)
    with torch.no_grad():
        both.model.score.weight.zero_()  # All labels have a probability of one half, which is above the threshold.
    tested = Labeled(texts[:8], [SEPARATOR.join(sorted(TOPICS))] * 8, multi_label=True)
    single = classifier(prompted, TOPICS, several=False)
    exact, micro, _ = compare_labels(single, both, HeldOut(Labeled([], []), tested), QUIET).comparisons
    assert (exact.before.estimate, exact.after.estimate) == (0, 100)
    assert (micro.before.estimate, micro.after.estimate) == (pytest.approx(40), 100)
