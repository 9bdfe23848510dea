"""`groundup evaluate` on a table selects the task from the model and the data, and reports the model's scores."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.commands._result import report_directory
from groundup.commands.evaluate import EvaluateConfig, run
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Message
from groundup.evaluation.harness import read_tasks
from groundup.evaluation.metrics import token_f1
from groundup.hub import save_classifier
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer


def a_table(path: Path, *rows: tuple[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def classifier(tmp_path: Path, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Path:
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    with torch.no_grad():
        model.score.weight.zero_()  # With equal scores, the model always predicts the first label.
    directory = tmp_path / "classifier"
    save_classifier(directory, model, ["yes", "no"], bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=0)
    tokenizer.save(directory)
    return directory


def test_a_classifier_is_scored_by_its_labels(classifier: Path, tmp_path: Path) -> None:
    """Examples with unknown labels are counted separately and not as errors."""
    rows = [("remark", "verdict"), ("one", "yes"), ("two", "yes"), ("three", "no"), ("four", "perhaps"), ("", "yes")]
    data = a_table(tmp_path / "remarks.csv", *rows)
    config = EvaluateConfig(model=classifier, data=data, text="remark", label="verdict", out=tmp_path / "report")
    facts = run(config).facts
    assert facts["test"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert facts["test"]["confusion"] == [[2, 0], [1, 0]]
    assert facts["dropped"] == {"empty text": 1, "label that the classifier does not have": 1}
    assert json.loads((tmp_path / "report" / "report.json").read_text())["summary"] == facts["summary"]


def test_a_classifier_needs_examples_with_its_labels(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no examples given"):
        run(EvaluateConfig(model=classifier))
    data = a_table(tmp_path / "others.csv", ("text", "label"), ("a b", "x"), ("c d", "y"), ("e f", "x"), ("g h", "y"))
    with pytest.raises(DataError, match="this classifier predicts the labels yes, no"):
        run(EvaluateConfig(model=classifier, data=data))


def test_the_loss_on_answers_equals_the_model_loss(chat_directory: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    from groundup.hub import load_model

    data = a_table(tmp_path / "quiz.csv", ("question", "answer"), ("Who wrote it?", "Nobody knows"))
    facts = run(EvaluateConfig(model=chat_directory, data=data, out=tmp_path / "report")).facts
    template = ChatTemplate(tokenizer)
    ids, trained = template.encode_labeled([Message("user", "Who wrote it?"), Message("assistant", "Nobody knows")])
    with torch.inference_mode():
        logprobs = load_model(chat_directory)(torch.tensor([ids]))[0].log_softmax(-1)
    nats = [-float(logprobs[at - 1, ids[at]]) for at in range(1, len(ids)) if trained[at]]
    assert facts["end_of_turn"]["loss"] == pytest.approx(nats[-1], abs=1e-3)
    # The last token is scored by its bytes, which are also the start of longer tokens, so its loss is slightly lower.
    words = facts["loss"] * facts["tokens"]
    assert sum(nats[:-2]) - 1e-3 <= words <= sum(nats[:-1]) + 1e-3
    assert math.isfinite(words)


def test_minimal_pairs_are_scored_by_group_and_ties_count_one_half(base_directory: Path, tmp_path: Path) -> None:
    rows = [("sentence_good", "sentence_bad", "UID"), ("a cat", "a cat", "same"), ("the dog", "dog the", "order")]
    config = EvaluateConfig(model=base_directory, data=a_table(tmp_path / "pairs.csv", *rows), out=tmp_path / "report")
    facts = run(config).facts
    items = [json.loads(line) for line in (tmp_path / "report" / "items.jsonl").read_text().splitlines()]
    assert [item["UID"] for item in items] == ["same", "order"]
    good, bad = items[1]["loglikelihoods"]
    assert items[0]["right"] == 0.5 and items[1]["right"] == float(good > bad)
    assert facts["groups"]["UID"]["same"]["value"] == 0.5
    assert facts["accuracy"]["value"] == pytest.approx((0.5 + items[1]["right"]) / 2)
    assert "## By UID" in (tmp_path / "report" / "report.md").read_text()


def test_several_tasks_are_one_report_with_all_items(base_directory: Path, tmp_path: Path) -> None:
    pairs = a_table(tmp_path / "pairs.csv", ("sentence_good", "sentence_bad"), ("the dog", "dog the"))
    quiz = a_table(tmp_path / "quiz.csv", ("question", "answer"), ("Who wrote it?", "Nobody"), ("And this?", "She"))
    config = EvaluateConfig(model=base_directory, task=(pairs, quiz), out=tmp_path / "report")
    facts = run(config).facts
    assert set(facts["tasks"]) == {"pairs", "quiz"}
    assert [row[0] for row in facts["table"]["rows"]] == ["pairs (1 item)", "", "quiz (2 items)", "", ""]
    items = [json.loads(line) for line in (tmp_path / "report" / "items.jsonl").read_text().splitlines()]
    assert [item["task"] for item in items] == ["pairs", "quiz", "quiz"]
    assert items[1]["reference"] == "Nobody" and isinstance(items[1]["written"], str)
    quiz.write_text("question,answer\nWho?,Me\n")
    assert run(config).facts["tasks"]["quiz"]["items"] == 1  # A changed table is scored again.


def test_generated_answers_are_scored_like_in_compare(chat_directory: Path, tmp_path: Path) -> None:
    rows = [("question", "answer"), ("Who wrote it?", "Nobody knows"), ("And why?", "It rained")]
    data = a_table(tmp_path / "quiz.csv", *rows)
    facts = run(EvaluateConfig(model=chat_directory, data=data, out=tmp_path / "report", metric="f1")).facts
    items = [json.loads(line) for line in (tmp_path / "report" / "items.jsonl").read_text().splitlines()]
    expected = token_f1([item["written"] for item in items], ["Nobody knows", "It rained"])
    assert facts["generated"]["token F1"]["value"] == pytest.approx(expected.estimate)
    assert set(facts["generated"]) == {"token F1", "exact match"}


def test_a_finished_report_is_used_only_for_equal_settings(chat_directory: Path, tmp_path: Path) -> None:
    """More examples, data with a task, and changed files of a task must not give the report of an earlier call."""
    data = a_table(tmp_path / "quiz.v1.csv", ("question", "answer"), *((f"Who is {n}?", "me") for n in range(3)))
    config = EvaluateConfig(model=chat_directory, data=data, max_examples=1, metric="f1", out=tmp_path / "report")
    assert len(run(config).facts["generated"]) == 2
    items = tmp_path / "report" / "items.jsonl"
    assert len(items.read_text().splitlines()) == 1
    run(config.model_copy(update={"max_examples": 3}))
    assert len(items.read_text().splitlines()) == 3
    with pytest.raises(ConfigError, match="together with --task or --lm-eval"):
        run(EvaluateConfig(model=chat_directory, data=data, task=(data,)))
    assert report_directory(chat_directory, chat_directory, [data]).name.endswith("quiz.v1")

    task, questions = tmp_path / "own.yaml", tmp_path / "data" / "questions.jsonl"
    questions.parent.mkdir()
    questions.write_text("{}\n")
    task.write_text(f"task: own\ndataset_kwargs:\n  data_files: {{test: {questions}}}\n")
    (tmp_path / "own.py").write_text("")
    digests = [read_tasks([], [str(task)], None)[1]["lm_eval"]]
    for changed in (questions, tmp_path / "own.py", task):
        changed.write_text(changed.read_text() + "\n")
        digests.append(read_tasks([], [str(task)], None)[1]["lm_eval"])
    assert len(set(digests)) == 4
