"""Comparison of two models: labels are detected on a small test set, and test examples never enter a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from groundup.core.console import Console
from groundup.core.types import Example, Message
from groundup.evaluation.comparisons import language_models
from groundup.evaluation.comparisons.language_models import AnswerTask, compare_answers
from groundup.evaluation.metrics import label_names
from groundup.evaluation.prompt_search import FewShotPrompt, PromptedModel
from groundup.evaluation.selection import answer_score
from groundup.tokenizer import Tokenizer

QUIET = Console(quiet=True)
TOPICS = ("statement", "expression", "module", "value")


@pytest.fixture(scope="module")
def examples(texts: list[str]) -> list[Example]:
    """The beginning of each text, with one of four words as its answer."""
    return [
        Example((Message("user", text), Message("assistant", TOPICS[place % len(TOPICS)])))
        for place, text in enumerate(texts)
    ]


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[FewShotPrompt]:
    """The prompts for which answers are generated."""
    seen: list[FewShotPrompt] = []
    real = language_models.generate_answers

    def spy(
        model: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example], *rest: int, **named: object
    ) -> list[str]:
        seen.append(prompt)
        return real(model, prompt, examples, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(language_models, "generate_answers", spy)
    return seen


def test_labels_are_detected_in_a_small_test_split(prompted: PromptedModel, examples: list[Example]):
    """The 8 test answers of 60 alone did not show that answers are labels."""
    names = label_names([example.messages[-1].content for example in examples])
    task = AnswerTask("exact", examples[8:], examples[:8], max_tokens=4, labels=names)
    assert prompted.chat_format is not None
    found = compare_answers(prompted, prompted, task, QUIET, prompt_after=FewShotPrompt(prompted.chat_format))
    assert [each.after.name for each in found.comparisons] == ["accuracy", "macro-F1", "bits per byte of the answers"]
    assert [name.split()[0] for name in found.comparisons[0].baselines] == ["always", "TF-IDF"]
    assert "performed best on training examples" in found.notes[0]


@pytest.mark.parametrize("templated", [True, False])
def test_prompts_contain_no_test_example(
    prompted: PromptedModel, examples: list[Example], templated: bool, prompts: list[FewShotPrompt]
):
    """The first test example was a shot of its own prompt, and the format was chosen on it."""
    given = prompted if templated else PromptedModel(prompted.model, prompted.tokenizer, None, prompted.stop_ids)
    for metric in ("likelihood", "exact"):
        found = compare_answers(given, given, AnswerTask(metric, [], examples[:5], max_tokens=4), QUIET)
        assert "there are no training examples" in found.notes[0]
        assert not any("performed best on training examples" in note for note in found.notes)
    usual = given.chat_format or given.plain_formats[0]
    assert all(prompt.format is usual and not prompt.shots and not prompt.instruction for prompt in prompts)
    assert len(prompts) == 4, "none to try a way on"


def test_training_answers_help_to_detect_labels(
    prompted: PromptedModel, tokenizer: Tokenizer, examples: list[Example], monkeypatch: pytest.MonkeyPatch
):
    """Four distinct validation answers do not show whether answers are labels."""
    seen: list[Sequence[str]] = []
    real = language_models.measures

    def spy(*given: object, labels: Sequence[str] = ()) -> object:
        seen.append(labels)
        return real(*given, labels=labels)  # type: ignore[arg-type]

    monkeypatch.setattr("groundup.evaluation.selection.measures", spy)
    assert prompted.template is not None
    for learned in (examples[4:], []):
        answer_score("exact", prompted.model, tokenizer, prompted.template, examples[:4], learned)()
    assert sorted(seen[0]) == sorted(TOPICS) and not seen[1]
