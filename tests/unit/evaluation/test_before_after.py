"""Two models on the same examples: labels stay labels on a small test, and no tested example helps to ask."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from groundup.core.console import Console
from groundup.core.types import Example, Message
from groundup.evaluation import before_after
from groundup.evaluation.asking import Asked, Way
from groundup.evaluation.before_after import Task, compare_answers
from groundup.evaluation.deciding import score_of_answers
from groundup.evaluation.metrics import label_names
from groundup.evaluation.rendering import PLAIN_FORMATS
from groundup.tokenizer import Tokenizer

QUIET = Console(quiet=True)
TOPICS = ("statement", "expression", "module", "value")


@pytest.fixture(scope="module")
def examples(texts: list[str]) -> list[Example]:
    """What each text begins with, named by one of four words."""
    return [
        Example((Message("user", text), Message("assistant", TOPICS[place % len(TOPICS)])))
        for place, text in enumerate(texts)
    ]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[Way]:
    """In which answers were asked for."""
    seen: list[Way] = []
    asking = before_after.write_answers

    def spy(asked: Asked, way: Way, examples: Sequence[Example], *rest: int, **named: object) -> list[str]:
        seen.append(way)
        return asking(asked, way, examples, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(before_after, "write_answers", spy)
    return seen


def test_a_small_test_of_labels_is_one_of_labels(asked: Asked, examples: list[Example]):
    """Told by 8 of 60 answers, they were no labels, and had no rival but the commonest answer."""
    names = label_names([example.messages[-1].content for example in examples])
    task = Task("exact", examples[8:], examples[:8], max_tokens=4, labels=names)
    found = compare_answers(asked, asked, task, Way(None), QUIET)
    assert [line.after.name for line in found.lines] == ["accuracy", "macro-F1", "bits per byte of the answers"]
    assert [name.split()[0] for name in found.lines[0].beside] == ["always", "TF-IDF"]
    assert "found on training examples" in found.notes[0]


@pytest.mark.parametrize("templated", [True, False])
def test_no_tested_example_is_shown_or_tried_on(
    asked: Asked, examples: list[Example], templated: bool, ways: list[Way]
):
    """The first of them stood before the questions with its answer, and the way was chosen by it."""
    given = asked if templated else Asked(asked.model, asked.tokenizer, None, asked.stop_ids)
    for metric in ("likelihood", "exact"):
        found = compare_answers(given, given, Task(metric, [], examples[:5], max_tokens=4), None, QUIET)
        assert "no training examples" in found.notes[0]
        assert not any("found on training examples" in note for note in found.notes)
    plainly = None if templated else PLAIN_FORMATS[0]
    assert all(way.format is plainly and not way.shots and not way.hint for way in ways)
    assert len(ways) == 4, "none to try a way on"


def test_what_is_learned_tells_whether_a_few_answers_are_labels(
    asked: Asked, tokenizer: Tokenizer, examples: list[Example], monkeypatch: pytest.MonkeyPatch
):
    """Of four answers set apart, all different, none comes again."""
    seen: list[Sequence[str]] = []
    real = before_after.measures

    def spy(*given: object, labels: Sequence[str] = ()) -> object:
        seen.append(labels)
        return real(*given, labels=labels)  # type: ignore[arg-type]

    monkeypatch.setattr("groundup.evaluation.deciding.measures", spy)
    assert asked.template is not None
    for learned in (examples[4:], []):
        score_of_answers("exact", asked.model, tokenizer, asked.template, examples[:4], learned)()
    assert sorted(seen[0]) == sorted(TOPICS) and not seen[1]
