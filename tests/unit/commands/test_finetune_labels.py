"""`groundup finetune classify` supports rare labels, several labels per text, and calibrated probabilities."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import classify, finetune_classify
from groundup.commands.classify import ClassifyConfig
from groundup.commands.finetune_classify import FinetuneClassifyConfig
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import text_id

SETTINGS: dict[str, Any] = {
    "num_epochs": 4, "batch_size": 8, "threads": 1, "truncate": True,
    "learning_rate": 0.02, "head_learning_rate": 0.003, "norm_learning_rate": 0.002,
}  # fmt: skip


def facts_of(directory: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((directory / "artifact.json").read_text(encoding="utf-8"))["facts"]
    return facts


@pytest.fixture(scope="module")
def large_table(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return real lines labeled by their first word. The task is easy, and the table is large enough for validation."""
    lines = {line.strip() for text in real_documents for line in text.split("\n") if 30 < len(line.strip()) < 70}
    found = [
        (line, "upper" if line[0].isupper() else "lower") for line in sorted(lines, key=text_id) if line[0].isalpha()
    ][:800]
    path = tmp_path_factory.mktemp("data") / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": v}) + "\n" for t, v in found), encoding="utf-8")
    return path


def test_calibrated_probabilities_are_the_same_in_transformers(
    run_directory: Path, large_table: Path, tmp_path: Path
) -> None:
    """The temperature of the calibration is part of the weights, so that other libraries get the same probabilities."""
    transformers = pytest.importorskip("transformers")
    import torch

    settings = SETTINGS | {"num_epochs": 1, "baseline": False}
    finetune_classify.run(FinetuneClassifyConfig(data=large_table, model=run_directory, out=tmp_path / "c", **settings))
    facts = facts_of(tmp_path / "c")
    apart = sum(facts["counts"]["validation"].values())
    assert apart == facts["calibration"]["fitted_on"] > 50
    assert apart + sum(facts["counts"]["train"].values()) + sum(facts["counts"]["test"].values()) == 800
    assert facts["calibration"]["temperature"] != 1
    assert 0 <= facts["calibration"]["expected_calibration_error"]["after"] < 1
    texts = tuple(sample["text"] for sample in facts["samples"])
    ours = classify.run(ClassifyConfig(model=tmp_path / "c", texts=texts))
    peer = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "c")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "c")
    for found in ours:
        with torch.no_grad():
            said = peer(**words(found.text, return_tensors="pt", truncation=True)).logits[0].softmax(-1)
        named = {peer.config.id2label[n]: float(p) for n, p in enumerate(said)}
        assert named == pytest.approx(found.probabilities, abs=1e-4)


def test_long_texts_are_dropped_unless_truncation_is_set(
    run_directory: Path, paragraphs: list[tuple[str, str]], tmp_path: Path
) -> None:
    """The end of a text may determine its label, so the default is not to train on truncated texts."""
    data = tmp_path / "t.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *paragraphs])

    def fine_tuned(truncate: bool) -> dict[str, Any]:
        settings = SETTINGS | {"num_epochs": 1, "baseline": False, "truncate": truncate}
        config = FinetuneClassifyConfig(data=data, model=run_directory, out=tmp_path / f"{truncate}", **settings)
        return finetune_classify.run(config, console=Console(quiet=True)).facts

    kept, cut = fine_tuned(False), fine_tuned(True)
    left_out = kept["dropped"]["longer than the context"]
    assert left_out > 0
    assert kept["cut"]["train"] == 0 and cut["cut"]["train"] == left_out
    assert sum(cut["counts"]["train"].values()) == sum(kept["counts"]["train"].values()) + left_out
    assert kept["cut"]["test"] == cut["cut"]["test"]  # long test texts are always truncated and never dropped


def test_rare_labels_cause_a_warning_and_can_be_balanced(
    run_directory: Path, paragraphs: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If one text in twenty has a rare label, a model that never predicts this label reaches 95 % accuracy."""
    first = paragraphs[0][1]
    few = [pair for pair in paragraphs if pair[1] == first][:4]
    many = [pair for pair in paragraphs if pair[1] != first]
    data = tmp_path / "t.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *few, *((text, "other") for text, _ in many)])

    def fine_tuned(out: Path, **changes: Any) -> dict[str, Any]:
        settings = SETTINGS | {"num_epochs": 1, "baseline": False, "truncate": True} | changes
        config = FinetuneClassifyConfig(data=data, model=run_directory, out=out, **settings)
        return finetune_classify.run(config, console=Console()).facts

    fine_tuned(tmp_path / "a")
    assert "balance = true" in capsys.readouterr().err
    fine_tuned(tmp_path / "b", balance=True)
    assert "balance = true" not in capsys.readouterr().err
    rare = {
        name: sum(
            found.probabilities[first]
            for found in classify.run(ClassifyConfig(model=tmp_path / name, texts=tuple(text for text, _ in many[:40])))
        )
        for name in ("a", "b")
    }
    assert rare["b"] > 2 * rare["a"]


def test_preview_shows_texts_with_labels_and_exits(
    run_directory: Path, large_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    config = FinetuneClassifyConfig(
        data=large_table, model=run_directory, out=out, preview=True, max_tokens=8, **SETTINGS
    )
    made = finetune_classify.run(config, console=Console())
    assert list(made.outputs) == ["c.tokens.html"] and not out.exists()
    said = capsys.readouterr().err
    assert "more truncated; label:" in said
    page = (tmp_path / "c.tokens.html").read_text(encoding="utf-8")
    assert "; truncated by " in page and "The loss is computed on the label only." in page


def test_the_best_checkpoint_is_selected_by_the_given_metric(
    run_directory: Path, large_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The learning rates are far too high, so the last checkpoint is worse than an earlier checkpoint."""
    settings = SETTINGS | {"num_epochs": 4, "baseline": False, "keep_best": "macro_f1", "early_stopping_patience": 4}
    settings |= {"learning_rate": 0.2, "embedding_learning_rate": 0.01, "allow_high_learning_rate": True}
    config = FinetuneClassifyConfig(data=large_table, model=run_directory, out=tmp_path / "c", **settings)
    finetune_classify.run(config, console=Console())
    said = capsys.readouterr().err
    assert ": validation macro_f1 0." in said and "Estimate from measured steps" in said
    with pytest.raises(ConfigError, match="fewer than 50"):
        few = FinetuneClassifyConfig(
            data=large_table, model=run_directory, out=tmp_path / "d", **settings | {"validation_fraction": 0.01}
        )
        finetune_classify.run(few, console=Console(quiet=True))


@pytest.fixture(scope="module")
def topics_table(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return real paragraphs with several labels. The labels are the words, out of three, that a paragraph contains."""
    found = {p.strip() for text in real_documents for p in text.split("\n\n") if 40 < len(p.strip()) < 400}
    words = ("object", "statement", "class")
    tagged = [(text, [word for word in words if word in text.lower()]) for text in sorted(found, key=text_id)]
    path = tmp_path_factory.mktemp("data") / "topics.jsonl"
    rows = [{"text": text, "topics": labels} for text, labels in tagged if labels][:900]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def topics(run_directory: Path, topics_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In float32, because training and `compare` round bfloat16 differently, which can change a predicted label."""
    out = tmp_path_factory.mktemp("topics") / "c"
    settings = SETTINGS | {"num_epochs": 6, "balance": True, "label": "topics", "validation_fraction": 0.2}
    settings |= {"dtype": "float32"}
    finetune_classify.run(FinetuneClassifyConfig(data=topics_table, model=run_directory, out=out, **settings))
    return out


def test_several_labels_are_trained_and_compared_with_baselines(topics: Path, topics_table: Path) -> None:
    facts = facts_of(topics)
    assert sorted(facts["labels"]) == ["class", "object", "statement"]
    assert facts["test"]["micro_f1"]["value"] > 0.5
    assert facts["test"]["exact"]["value"] > facts["majority"]["exact"]
    low, high = facts["test"]["macro_f1"]["interval"]
    assert low <= facts["test"]["macro_f1"]["value"] <= high
    assert facts["tfidf"]["micro_f1"]["value"] > 0.8  # the features of TF-IDF include these words
    assert facts["calibration"]["fitted_on"] > 50
    given = [json.loads(line) for line in topics_table.read_text().splitlines()]
    for sample in facts["samples"]:
        (labels,) = (row["topics"] for row in given if row["text"].startswith(sample["text"]))
        assert sorted(sample["label"].split(", ")) == sorted(labels)


def test_transformers_gives_the_same_multi_label_probabilities(topics: Path, topics_table: Path) -> None:
    """The pipeline of transformers selects softmax or sigmoid according to `problem_type`."""
    transformers = pytest.importorskip("transformers")
    texts = [json.loads(line)["text"] for line in topics_table.read_text(encoding="utf-8").splitlines()[:12]]
    pipeline = transformers.pipeline("text-classification", model=str(topics), device="cpu", top_k=None)
    for found, said in zip(
        classify.run(ClassifyConfig(model=topics, texts=tuple(texts))), pipeline(texts, truncation=True), strict=True
    ):
        named = {each["label"]: each["score"] for each in said}
        assert named == pytest.approx(found.probabilities, abs=1e-4)
        assert set(found.labels) == {label for label, share in named.items() if share >= 0.5}
        assert found.label == ", ".join(found.labels)


def test_several_labels_are_printed_and_evaluated(topics: Path, topics_table: Path, tmp_path: Path) -> None:
    from groundup.commands import evaluate

    lines: list[str] = []
    texts = ("The class statement makes a class object.", "x")
    classify.run(ClassifyConfig(model=topics, texts=texts), on_text=lines.append, json_lines=True)
    first = json.loads(lines[0])
    assert set(first) == {"text", "labels", "probabilities", "novelty", "unlike"}
    assert set(first["labels"]) == {label for label, share in first["probabilities"].items() if share >= 0.5}
    config = evaluate.EvaluateConfig(model=topics, data=topics_table, label="topics", out=tmp_path / "r")
    facts = evaluate.run(config, console=Console(quiet=True)).facts
    assert facts["test"]["examples"] > 500 and 0.5 < facts["test"]["micro_f1"]["value"] <= 1


def test_several_labels_compared_with_the_base_model(
    run_directory: Path, topics: Path, topics_table: Path, large_table: Path, tmp_path: Path
) -> None:
    """The model was trained on a part of the table, so the test set is the held-out part."""
    from groundup.commands import compare

    def compared(base: Path, fine_tuned: Path, **keys: Any) -> dict[str, Any]:
        given = {
            "base": str(base),
            "fine_tuned": str(fine_tuned),
            "data": str(topics_table),
            "out": str(tmp_path / "out"),
        }
        made = compare.run(load(compare.CompareConfig, given | keys), console=Console(quiet=True))
        return {line["name"]: line for line in made.facts["lines"]}

    found = compared(topics, topics, dtype="float32")
    test = facts_of(topics)["test"]
    assert list(found) == ["exact sets", "micro-F1", "macro-F1"]
    for name, measure in (("exact sets", "exact"), ("micro-F1", "micro_f1"), ("macro-F1", "macro_f1")):
        assert found[name]["after"]["value"] == pytest.approx(100 * test[measure]["value"])
        assert found[name]["difference"]["value"] == 0
    assert any(name.startswith("TF-IDF") for name in found["micro-F1"]["baselines"])
    found = compared(run_directory, topics, max_examples=40, out=str(tmp_path / "base"))
    assert found["micro-F1"]["what"] == "40 texts" and found["micro-F1"]["verdict"] == "better"
    single = tmp_path / "single"
    settings = SETTINGS | {"num_epochs": 1, "baseline": False, "validation_fraction": 0}
    finetune_classify.run(FinetuneClassifyConfig(data=large_table, model=run_directory, out=single, **settings))
    rows = [json.loads(line) for line in topics_table.read_text(encoding="utf-8").splitlines()[:60]]
    both = "".join(json.dumps(row | {"topics": ["lower", "upper"]}) + "\n" for row in rows)
    (tmp_path / "both.jsonl").write_text(both, encoding="utf-8")
    with pytest.raises(DataError, match="some texts have several labels"):
        keys = {"data": str(tmp_path / "both.jsonl"), "label": "topics"}
        compared(run_directory, single, out=str(tmp_path / "single-out"), **keys)


def test_limit_reduces_the_training_set_only(run_directory: Path, large_table: Path, tmp_path: Path) -> None:
    """Learning curves require the same test set in all runs."""
    settings = SETTINGS | {"num_epochs": 1, "validation_fraction": 0}
    whole, part = tmp_path / "whole", tmp_path / "part"
    finetune_classify.run(FinetuneClassifyConfig(data=large_table, model=run_directory, out=whole, **settings))
    finetune_classify.run(
        FinetuneClassifyConfig(data=large_table, model=run_directory, out=part, limit=100, **settings)
    )
    counts = {out: facts_of(out)["counts"] for out in (whole, part)}
    assert counts[part]["test"] == counts[whole]["test"]
    assert sum(counts[part]["train"].values()) == 100
    assert set(counts[part]["train"]) == {"upper", "lower"}
