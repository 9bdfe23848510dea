"""`groundup compare` compares a base model with a fine-tuned model on paragraphs of real text."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import compare, finetune_classify, finetune_instruct
from groundup.core import artifact
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def base(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    directory = tmp_path_factory.mktemp("models") / "base"
    model = tiny_model(tokenizer.vocab_size, context_length=160)
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def paragraphs(real_documents: list[str]) -> list[tuple[str, str]]:
    """Return pairs of the beginning of a paragraph and its document, from the three longest documents."""
    longest = sorted(real_documents, key=len)[-3:]
    found = [
        (" ".join(part.split()[:14]), text.split("\n")[0].strip())
        for text in longest
        for part in text.split("\n\n")
        if len(part.split()) > 14
    ]
    return list(dict(found).items())[:160]


@pytest.fixture(scope="module")
def pairs(paragraphs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table with beginnings of paragraphs as prompts and their continuations as answers."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    words = [text.split() for text, _ in paragraphs]
    rows = [{"question": " ".join(w[:8]), "answer": " ".join(w[8:])} for w in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def table(paragraphs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "paragraphs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "topic"), *paragraphs])
    return path


@pytest.fixture(scope="module")
def chat(pairs: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "chat"
    keys = {"data": str(pairs), "model": str(base), "out": str(out), "threads": 1, "compile": False, "num_epochs": 6.0}
    finetune_instruct.run(
        load(finetune_instruct.FinetuneInstructConfig, keys | {"learning_rate_scale": 1.0, "test_fraction": 0.3}),
        console=QUIET,
    )
    return out


@pytest.fixture(scope="module")
def classifier(table: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "classifier"
    keys = {"data": str(table), "model": str(base), "out": str(out), "threads": 1, "num_epochs": 6, "batch_size": 8}
    rates = {"learning_rate": 0.02, "head_learning_rate": 0.003, "norm_learning_rate": 0.002}
    finetune_classify.run(load(finetune_classify.FinetuneClassifyConfig, keys | rates), console=QUIET)
    return out


def compared(base: Path, fine_tuned: Path, out: Path, **keys: Any) -> tuple[dict[str, Any], str]:
    config = load(compare.CompareConfig, {"base": str(base), "fine_tuned": str(fine_tuned), "out": str(out)} | keys)
    compare.run(config, console=QUIET)
    return json.loads((out / "compare.json").read_text()), (out / "compare.md").read_text()


def line(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in found["lines"] if each["name"] == name)


def test_the_report_shows_gain_and_forgetting(
    base: Path, chat: Path, pairs: Path, real_documents: list[str], tmp_path: Path
):
    """If the table was used for fine-tuning, only its held-out split is scored."""
    (tmp_path / "general.txt").write_text(max(real_documents, key=len)[:30_000], encoding="utf-8")
    general = str(tmp_path / "general.txt")
    found, page = compared(base, chat, tmp_path / "out", data=str(pairs), general=general, metric="f1", max_examples=30)
    held_out = artifact.read(chat).facts["examples"]["test"]
    assert any(f"the {held_out} held-out examples" in note for note in found["notes"])
    answers = line(found, "bits per byte of the answers")
    assert answers["verdict"] == "better"
    assert answers["difference"]["interval"][1] < 0
    assert line(found, "bits per byte of general text")["about"] == "general"
    assert line(found, "token F1")["before"]["value"] <= 100
    assert all(name in page for name in ("token F1", "bits per byte of general text", "not distinguishable"))
    assert found["transcripts"][0]["reference"]
    assert "Fine-tuned:" in page
    assert artifact.read(tmp_path / "out").facts["lines"] == found["lines"]


def test_equal_models_are_not_significantly_different(base: Path, pairs: Path, tmp_path: Path):
    """If equal models differed, the cause could only be that their prompts differ."""
    found, _ = compared(base, base, tmp_path / "out", data=str(pairs), metric="chrf", max_examples=12)
    assert {each["verdict"] for each in found["lines"]} == {"not distinguishable"}
    assert all(each["difference"]["value"] == 0 for each in found["lines"])


def test_a_classifier_is_compared_with_its_base_and_tfidf(base: Path, classifier: Path, table: Path, tmp_path: Path):
    found, page = compared(base, classifier, tmp_path / "out", data=str(table), max_examples=24)
    accuracy = line(found, "accuracy")
    assert set(accuracy["baselines"]) == {
        next(name for name in accuracy["baselines"] if name.startswith("always")),
        "TF-IDF + logistic regression",
    }
    assert accuracy["what"] == "24 texts"
    assert "the best prompt" in page
    again, _ = compared(classifier, classifier, tmp_path / "again", data=str(table))
    assert line(again, "accuracy")["difference"]["value"] == 0
    test = artifact.read(classifier).facts["test"]
    assert line(again, "accuracy")["after"]["value"] == pytest.approx(100 * test["accuracy"]["value"])
    assert line(again, "macro-F1")["after"]["value"] == pytest.approx(100 * test["macro_f1"]["value"])


def test_a_training_table_with_a_separate_test_set_is_rejected(base: Path, pairs: Path, tmp_path: Path):
    """The model was trained on the whole table, so a comparison on this table would measure memorization."""
    rows = pairs.read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(rows[:60]))
    (tmp_path / "test.jsonl").write_text("".join(rows[60:90]))
    keys = {"data": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl"), "model": str(base)}
    keys |= {"out": str(tmp_path / "chat"), "threads": 1, "compile": False, "num_epochs": 0.5, "num_evaluations": 0}
    finetune_instruct.run(load(finetune_instruct.FinetuneInstructConfig, keys), console=QUIET)
    with pytest.raises(DataError, match="trained on"):
        compared(base, tmp_path / "chat", tmp_path / "out", data=str(tmp_path / "train.jsonl"))
    data = {"data": str(tmp_path / "test.jsonl"), "train": str(tmp_path / "train.jsonl"), "metric": "likelihood"}
    found, _ = compared(base, tmp_path / "chat", tmp_path / "out", **data)
    assert line(found, "bits per byte of the answers")["what"] == "30 answers"


def test_training_rows_are_excluded_from_any_table(
    base: Path, chat: Path, pairs: Path, classifier: Path, table: Path, tmp_path: Path
):
    """A training row remains a training row if the user saves the table again, adds rows, or renames the columns."""
    tested = artifact.read(chat).facts["examples"]["test"]
    (tmp_path / "again.jsonl").write_text(pairs.read_text() + json.dumps({"question": "New?", "answer": "Yes."}) + "\n")
    keys = {"metric": "likelihood", "train": str(pairs)}
    found, _ = compared(base, chat, tmp_path / "a", data=str(tmp_path / "again.jsonl"), **keys)
    assert line(found, "bits per byte of the answers")["what"] == f"{tested + 1} answers"
    assert any("examples that the model was trained on" in note for note in found["notes"])

    (tmp_path / "again.csv").write_text(table.read_text() + "A new text about nothing,none\n")
    found, _ = compared(classifier, classifier, tmp_path / "b", data=str(tmp_path / "again.csv"), train=str(table))
    counts = artifact.read(classifier).facts["counts"]["test"]
    assert line(found, "accuracy")["what"] == f"{sum(counts.values())} texts"
    assert any("labels the classifier does not have" in note for note in found["notes"])


def test_one_given_column_keeps_the_other_settings(base: Path, table: Path, tmp_path: Path):
    """With other settings, the same rows would become other texts with another split, mostly of training data."""
    mails = tmp_path / "mails.csv"
    with table.open(newline="", encoding="utf-8") as read, mails.open("w", newline="", encoding="utf-8") as written:
        rows = list(csv.reader(read))
        csv.writer(written).writerows([rows[0], *([f"Head {n}\n\n{row[0]}", row[1]] for n, row in enumerate(rows[1:]))])
    keys = {"data": str(mails), "model": str(base), "out": str(tmp_path / "c"), "threads": 1, "num_epochs": 0.5}
    keys |= {"text_after": "\n\n"}
    finetune_classify.run(load(finetune_classify.FinetuneClassifyConfig, keys), console=QUIET)
    found, _ = compared(tmp_path / "c", tmp_path / "c", tmp_path / "out", data=str(mails), label="topic")
    counts = artifact.read(tmp_path / "c").facts["counts"]["test"]
    assert line(found, "accuracy")["what"] == f"{sum(counts.values())} texts"
    test = artifact.read(tmp_path / "c").facts["test"]
    assert line(found, "accuracy")["after"]["value"] == pytest.approx(100 * test["accuracy"]["value"])


def test_missing_data_is_reported_before_models_are_loaded(base: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no data to compare on"):
        compared(base, base, tmp_path / "out")


def test_the_verdict_does_not_depend_on_the_precision(base: Path, chat: Path, pairs: Path, tmp_path: Path) -> None:
    """In bf16, scores of about 5 bits per byte differ in the third digit, because the mantissa has 8 bits."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        report, _ = compared(base, chat, tmp_path / dtype, data=str(pairs), metric="likelihood", dtype=dtype)
        assert artifact.read(tmp_path / dtype).facts["dtype"] == dtype
        found[dtype] = report["lines"][0]
    assert found["float32"]["verdict"] == found["bfloat16"]["verdict"] == "better"
    for when in ("before", "after"):
        exact, rounded = found["float32"][when]["value"], found["bfloat16"][when]["value"]
        assert exact != rounded
        assert exact == pytest.approx(rounded, rel=1e-2)


def test_models_are_compared_on_tasks_item_by_item(base: Path, tmp_path: Path) -> None:
    """The same model twice: the interval of the difference is 0 to 0, so the models are not distinguishable."""
    task = tmp_path / "pairs.csv"
    task.write_text("sentence_good,sentence_bad\nthe dog,dog the\na cat,cat a\n", encoding="utf-8")
    values = {"base": str(base), "fine_tuned": str(base), "task": [str(task)], "out": str(tmp_path / "out")}
    facts = compare.run(load(compare.CompareConfig, values), console=QUIET).facts
    line = facts["lines"][0]
    assert (line["name"], line["what"], line["verdict"]) == ("accuracy", "pairs, 2 items", "not distinguishable")
    assert line["difference"] == {"value": 0, "interval": [0, 0]}
    assert line["baselines"]["random guess"]["value"] == 50
