"""Tasks as files: every kind is read from a small file, and its score is what a person counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.data.choices import read_choices
from groundup.data.tables import read_table
from groundup.evaluation import prompt_search
from groundup.evaluation.choices import score_choices
from groundup.evaluation.comparisons.language_models import compare_tasks
from groundup.evaluation.prompt_search import PromptedModel
from groundup.evaluation.tasks import TaskModel, TaskReport, TaskResult, read_task, score_tasks, scoring
from groundup.evaluation.tasks.checks import CHECKS, passed_checks, require_checks
from groundup.inference import GenerationRequest, Sampling, complete_all

QUIET = Console(quiet=True)


def task_file(folder: Path, rows: Sequence[Mapping[str, Any]], toml: str = "", name: str = "items") -> Path:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if not toml:
        return data
    (folder / f"{name}.toml").write_text(f'data = "{name}.jsonl"\n{toml}\n', encoding="utf-8")
    return folder / f"{name}.toml"


def scored(prompted: PromptedModel, path: Path) -> TaskResult:
    return score_tasks(TaskModel(prompted), [read_task(path)], QUIET)[0]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the model say these texts, so that the expected score is counted by hand."""

    def set_texts(*texts: str) -> None:
        said = iter(texts)

        def complete(model: object, tokenizer: object, requests: Sequence[object], **_: object) -> list[Any]:
            return [type("Completion", (), {"text": next(said)}) for _ in requests]

        monkeypatch.setattr(prompt_search, "complete_all", complete)

    return set_texts


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"sentence_good": "a b", "sentence_bad": "b a"}, "minimal_pairs"),
        ({"question": "q", "choices": ["a", "b"], "answer": 0}, "multiple_choice"),
        ({"prompt": "Say it.", "checks": {"max_words": 1}}, "instructions"),
        ({"text": "good film", "label": "positive"}, "classification"),
        ({"question": "Who wrote Emma?", "answer": "Jane Austen"}, "qa"),
    ],
)
def test_the_kind_is_detected_from_the_columns(row: dict[str, Any], kind: str, tmp_path: Path) -> None:
    assert read_task(task_file(tmp_path, [row])).kind == kind


def test_a_wrong_task_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_task(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="did you mean 'num_fewshot'"):
        read_task(task_file(tmp_path, [{"a": 1}], 'kind = "qa"\nnum_shots = 2'))
    with pytest.raises(DataError, match="do not match any kind of task"):
        read_task(task_file(tmp_path, [{"x": "some words", "z": "other words"}]))
    with pytest.raises(ConfigError, match="has metric"):
        read_task(task_file(tmp_path, [{"a": 1}], 'kind = "minimal_pairs"\nmetric = "f1"'))


def test_arithmetic_compares_the_last_number(
    prompted: PromptedModel, tmp_path: Path, says: Callable[..., None]
) -> None:
    rows = [
        {"question": "1 + 1?", "answer": "2", "level": "easy"},
        {"question": "500 * 2?", "answer": "So 500 * 2 = #### 1000", "level": "hard"},
        {"question": "2 - 5?", "answer": "-3", "level": "hard"},
        {"question": "1 / 2?", "answer": "0.5", "level": "hard"},
    ]
    says("It is 2.", "First 500, then $1,000.00", "3", "no idea")
    found = scored(prompted, task_file(tmp_path, rows, 'kind = "arithmetic"\ngroup = ["level"]'))
    assert [item["exact number"] for item in found.items] == [100, 100, 0, 0]
    assert found.measures[0].estimate == 50
    assert {name: each.estimate for name, each in found.groups["level"].items()} == {
        "easy": 100,
        "hard": pytest.approx(100 / 3),
    }
    page = TaskReport([found]).to_markdown()
    assert "## items by level" in page and "exact number" in page


def test_generated_answers_have_the_metrics_of_their_kind(
    prompted: PromptedModel, tmp_path: Path, says: Callable[..., None]
) -> None:
    rows = [{"en": "A red house.", "de": "Ein rotes Haus."}, {"en": "A dog.", "de": "Ein Hund."}]
    says("Ein rotes Haus.", "Eine Katze.")
    toml = 'kind = "translation"\nprompt = "Translate to German: {en}"\nresponse = "{de}"'
    found = scored(prompted, task_file(tmp_path, rows, toml))
    assert [measure.name for measure in found.measures] == ["chrF", "BLEU", "bits per byte of the answers"]
    assert found.items[0]["chrF"] == 100 > found.items[1]["chrF"]
    assert "the untranslated input" in found.baselines
    assert found.items[0]["prompt"] == "Translate to German: A red house."


def test_instructions_count_items_and_checks(
    prompted: PromptedModel, tmp_path: Path, says: Callable[..., None]
) -> None:
    rows = [
        {"prompt": "Name a fruit.", "checks": {"max_words": 1, "lowercase": True}},
        {"prompt": "Write JSON.", "checks": {"valid_json": True}},
        {"prompt": "Greet.", "checks": {"starts_with": "Dear", "max_words": 3}},
    ]
    says("apple", '```json\n{"a": 1}\n```', "Hello, how are you?")
    found = scored(prompted, task_file(tmp_path, rows))
    assert found.measures[0].estimate == pytest.approx(200 / 3)
    assert found.measures[1].estimate == pytest.approx(100 * 3 / 5)
    assert found.groups["check"]["max_words"].estimate == 50
    assert found.items[2]["checks"] == {"starts_with": False, "max_words": False}


@pytest.mark.parametrize(
    ("name", "argument", "passes", "fails"),
    [
        ("max_words", 2, "state-of-the-art it's", "one two three"),
        ("min_words", 2, "two words", "one"),
        ("max_sentences", 1, "One sentence.", "One. Two sentences."),
        ("min_sentences", 2, "One. Two sentences.", "One sentence."),
        ("max_characters", 3, "abc\n", "abcd"),
        ("paragraphs", 2, "one\n\ntwo\nlines", "one\ntwo"),
        ("lines", 2, "one\n\ntwo", "one"),
        ("bullets", 2, "- a\n* b", "- a\n-b"),
        ("contains", ["art", "sea"], "The SEA is art.", "The start of the sea."),
        ("excludes", "art", "The start.", "Art!"),
        ("starts_with", ["Dear", "Hello"], " hello you", "Hi"),
        ("ends_with", "bye", "Good Bye", "bye now"),
        ("one_of", ["yes", "no"], "Yes.", "yes or no"),
        ("lowercase", True, "ab 1", "Ab"),
        ("uppercase", True, "AB 1", "Ab"),
        ("commas", False, "a b", "a, b"),
        ("quoted", True, '"a"', "a"),
        ("title", True, "<<Title>>\ntext", "<Title>"),
        ("valid_json", True, '[1, {"a": null}]', "{a: 1}"),
        ("language", "de", "Das ist ein deutscher Satz über das Wetter.", "This is a sentence about the weather."),
    ],
)
def test_each_check(name: str, argument: Any, passes: str, fails: str) -> None:
    checks = require_checks({name: argument}, "row 1")
    assert passed_checks(passes, checks) == {name: True}
    assert passed_checks(fails, checks) == {name: False}
    assert passed_checks("", checks) == {name: False}  # An empty answer would otherwise pass all limits.


def test_every_check_is_tested() -> None:
    marks = test_each_check.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(CHECKS)


@pytest.mark.parametrize("checks", [{"max_word": 3}, {"max_words": "3"}, {"lowercase": 1}, {"contains": []}, None, "x"])
def test_an_invalid_check_names_its_row(checks: Any) -> None:
    with pytest.raises(DataError, match="row 7"):
        require_checks(checks, "items, row 7")


def test_memorization_is_one_for_the_models_own_text_and_zero_otherwise(
    prompted: PromptedModel, tmp_path: Path, texts: list[str]
) -> None:
    """A model reproduces exactly the text that it generates greedily. The interval of 0 hits must not be 0 to 0."""
    ids = prompted.tokenizer.encode(" ".join(texts))
    windows = [tuple(ids[start : start + 8]) for start in range(0, 400, 8)]
    requests = [
        GenerationRequest(prompt=w, sampling=Sampling(temperature=0.0), max_tokens=8, stop_ids=()) for w in windows
    ]
    done = complete_all(prompted.model, prompted.tokenizer, requests, dtype="float32")
    decode, encode = prompted.tokenizer.decode, prompted.tokenizer.encode
    pairs = [(list(w), list(each.token_ids)) for w, each in zip(windows, done, strict=True)]
    # Only texts that are tokenized again to the same tokens can be compared.
    own = [decode(a + b) for a, b in pairs if encode(decode(a + b)) == a + b]
    assert len(own) >= 3
    toml = 'kind = "memorization"\nprompt_tokens = 8\ncontinuation_tokens = 8'
    fp32 = replace(prompted, dtype="float32")
    own_result = scored(fp32, task_file(tmp_path, [{"text": text} for text in own], toml, "own"))
    assert own_result.measures[0].estimate == 100
    other = scored(fp32, task_file(tmp_path, [{"text": text} for text in texts], toml, "other"))
    assert other.measures[0].estimate < 50
    interval = other.intervals["extraction rate"]
    assert interval.high > interval.estimate


def test_few_shot_items_are_shown_but_not_scored(prompted: PromptedModel, tmp_path: Path) -> None:
    rows = [{"question": f"{n} or {n + 1}?", "choices": [str(n), str(n + 1)], "answer": n % 2} for n in range(6)]
    zero = scored(prompted, task_file(tmp_path, rows, "", "zero"))
    two = scored(prompted, task_file(tmp_path, rows, "num_fewshot = 2", "two"))
    assert (len(zero.items), len(two.items)) == (6, 4)
    assert two.items[0]["loglikelihoods"] != zero.items[2]["loglikelihoods"]


def test_scores_do_not_depend_on_the_batch_size(prompted: PromptedModel, tmp_path: Path, texts: list[str]) -> None:
    """In other tools, padding changes scores (lm-evaluation-harness issue 1645)."""
    rows = [
        {"question": texts[n], "choices": [texts[n + 1], texts[n + 2][:12], texts[n + 3] * 2], "answer": n % 3}
        for n in range(40)
    ]
    items = read_choices(read_table(task_file(tmp_path, rows))).items
    by_size = [score_choices(prompted.model, prompted.tokenizer, items, batch_size=size) for size in (1, 3, 32)]
    for other in by_size[1:]:
        assert np.array_equal(other.right_E, by_size[0].right_E)
        assert np.allclose(other.loglikelihoods, by_size[0].loglikelihoods, rtol=0, atol=1e-4)


def test_two_tasks_with_one_name_are_refused(prompted: PromptedModel, tmp_path: Path) -> None:
    """The report is keyed by name, so one result would replace the other."""
    path = task_file(tmp_path, [{"sentence_good": "a b", "sentence_bad": "b a"}])
    with pytest.raises(ConfigError, match="two tasks have the name 'items'"):
        score_tasks(TaskModel(prompted), [read_task(path), read_task(path)], QUIET)


def test_models_are_compared_on_the_items_that_both_have_scored(
    prompted: PromptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Callable[..., None]
) -> None:
    """If each model drops another item, pairs by place would compare different items of equal number."""
    rows = [{"question": f"What is {word}?", "answer": word} for word in ("red", "a blue house", "x", "nothing")]
    other, path = replace(prompted), task_file(tmp_path, rows)
    too_long = {id(prompted): "red", id(other): "x"}
    monkeypatch.setattr(
        scoring, "_fits", lambda model, prompt, example, _: example.messages[-1].content != too_long[id(model)]
    )
    says(*["none"] * 6)
    before, after = TaskModel(prompted), TaskModel(other)
    compared = compare_tasks(before, after, [read_task(path)], QUIET)
    assert [len(each.after.sums_EK) for each in compared.comparisons] == [2] * len(compared.comparisons)
    for each in compared.comparisons:  # Both models are the same.
        assert each.difference.bounds == pytest.approx((0, 0), abs=1e-4)
    assert compared.notes == [
        "items: 2 items left out, because not all items fit into the context of all models (items that fit: 3, 3)."
    ]


def test_items_too_long_for_the_context_are_reported(prompted: PromptedModel, tmp_path: Path) -> None:
    long = "word " * 2 * prompted.model.config.context_length
    rows = [{"text": text, "label": label} for text, label in (("a", "yes"), (long, "no"), ("b", "no"))]
    found = scored(prompted, task_file(tmp_path, rows, 'kind = "classification"'))
    assert list(found.numbers) == [0, 2] and found.dropped == {"too long for the context": 1}
    assert "on 2 items (too long for the context: 1)" in found.sentence
    assert "dropped: too long for the context: 1" in TaskReport([found]).to_markdown()


def test_classification_scores_the_most_likely_label(prompted: PromptedModel, tmp_path: Path, texts: list[str]) -> None:
    rows = [{"text": text, "label": "yes" if n % 3 else "no"} for n, text in enumerate(texts[:9])]
    found = scored(prompted, task_file(tmp_path, rows))
    assert [measure.name for measure in found.measures] == ["accuracy", "macro-F1"]
    assert found.baselines["always 'yes'"].estimate == pytest.approx(100 * 6 / 9)
    right = [item["predicted"] == item["label"] for item in found.items]
    assert found.measures[0].estimate == pytest.approx(100 * sum(right) / 9)
