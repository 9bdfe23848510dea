"""`groundup finetune classify` and `groundup classify` work on real paragraphs, whose label is their document."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import classify, finetune_classify
from groundup.commands.classify import ClassifyConfig
from groundup.commands.finetune_classify import FinetuneClassifyConfig
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.hub.loading import load_tokenizer, open_classifier
from groundup.hub.resolve import resolve_classifier, resolve_model
from groundup.inference.classification import predict
from groundup.train.classifier import initial_head
from groundup.train.classifier import plan as classifier_plan
from groundup.train.classifier.initial_head import PROMPT_AFTER, PROMPT_BEFORE, HeadFit
from groundup.train.planner import fine_tuning

SETTINGS: dict[str, Any] = {
    "num_epochs": 4,
    "batch_size": 8,
    "threads": 1,
    "dtype": "float32",  # In bf16, kernels are chosen by timing, and two runs with other kernels round differently.
    "learning_rate": 0.02,
    "head_learning_rate": 0.003,
    "norm_learning_rate": 0.002,
    "truncate": True,
}


@pytest.fixture(scope="module")
def table(paragraphs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV table with extra columns, an empty cell, a duplicate, and a label that has only one example."""
    path = tmp_path_factory.mktemp("data") / "paragraphs.csv"
    rows = [*paragraphs, ("", paragraphs[0][1]), paragraphs[0], ("a stray text", "stray")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "paragraph", "document"])
        writer.writerows([number, text, label] for number, (text, label) in enumerate(rows))
    return path


@pytest.fixture(scope="module")
def classifier(run_directory: Path, table: Path) -> Path:
    out = run_directory / "classifier"
    finetune_classify.run(FinetuneClassifyConfig(data=table, model=run_directory, out=out, **SETTINGS))
    return out


def facts_of(directory: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((directory / "artifact.json").read_text(encoding="utf-8"))["facts"]
    return facts


def test_a_classifier_is_trained_and_evaluated(classifier: Path, paragraphs: list[tuple[str, str]]) -> None:
    """The base model has random weights, so the accuracy can only result from this training."""
    facts = facts_of(classifier)
    assert facts["columns"] == "paragraph -> document"
    assert facts["dropped"] == {"empty text": 1, "duplicate": 1, "only example of its label": 1}
    counted = {label: facts["counts"]["train"][label] + facts["counts"]["test"][label] for label in facts["labels"]}
    assert counted == {label: sum(label == each for _, each in paragraphs) for label in counted}
    accuracy, test = facts["test"]["accuracy"], facts["test"]
    assert accuracy["value"] > facts["majority"]["accuracy"] + 0.1
    assert accuracy["interval"][0] < accuracy["value"] < accuracy["interval"][1]
    assert sum(map(sum, test["confusion"])) == test["examples"] == sum(facts["counts"]["test"].values())
    assert [sum(row) for row in test["confusion"]] == [facts["counts"]["test"][label] for label in facts["labels"]]
    assert 0.5 < facts["tfidf"]["accuracy"]["value"] <= 1
    assert {sample["label"] for sample in facts["samples"]} <= set(facts["labels"])


def test_the_metrics_log_has_one_line_per_step(classifier: Path) -> None:
    rows = [json.loads(line) for line in (classifier / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert {"loss", "accuracy", "grad_norm", "lr_factor", "seconds", "tokens_seen"} <= set(rows[0])
    assert rows[-1]["tokens_seen"] == pytest.approx(4 * sum(facts_of(classifier)["counts"]["train"].values()))
    assert not (classifier / "checkpoints").exists()


def test_the_reported_accuracy_matches_the_saved_model(classifier: Path, table: Path) -> None:
    """The saved model must be tested, because users load it, and not the model in memory."""
    facts = facts_of(classifier)
    texts = tuple(sample["text"] for sample in facts["samples"] if len(sample["text"]) < 300)
    found = classify.run(ClassifyConfig(model=classifier, texts=texts))
    expected = {sample["text"]: (sample["predicted"], sample["probability"]) for sample in facts["samples"]}
    assert len(found) > 2
    for each in found:
        label, probability = expected[each.text]
        assert (each.label, each.probabilities[label]) == (label, pytest.approx(probability, abs=1e-5))
        assert sum(each.probabilities.values()) == pytest.approx(1)


def test_a_finished_run_is_not_trained_again(classifier: Path, run_directory: Path, table: Path) -> None:
    before = (classifier / "model.safetensors").stat().st_mtime_ns
    finetune_classify.run(FinetuneClassifyConfig(data=table, model=run_directory, out=classifier, **SETTINGS))
    assert (classifier / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_contains_a_language_model_and_a_classifier(classifier: Path, run_directory: Path) -> None:
    """`groundup chat RUN` must not open the newer classifier, and `classify RUN` must not open the base model."""
    assert resolve_model(run_directory) == run_directory / "base"
    assert resolve_classifier(run_directory) == classifier
    assert open_classifier(run_directory).labels == tuple(facts_of(classifier)["labels"])
    with pytest.raises(DataError, match="finetune classify"):
        resolve_classifier(run_directory / "base")


TIMES = ("seconds", "waited", "mfu")


def test_a_killed_run_resumes_with_the_same_result(
    classifier: Path, run_directory: Path, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    config = FinetuneClassifyConfig(data=table, model=run_directory, out=out, checkpoint_seconds=0, **SETTINGS)
    program = (
        "import json, sys; from groundup.core.config import load; from groundup.commands.finetune_classify import *;"
        "run(load(FinetuneClassifyConfig, json.loads(sys.argv[1])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(config.model_dump(mode="json", exclude_none=True))], env=os.environ
    )
    deadline = time.monotonic() + 120
    while not list((out / "checkpoints").glob("step-0000000[5-9]")):
        assert process.poll() is None, "the process ended before the test could kill it"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finetune_classify.run(config)
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (classifier / name).read_bytes(), name
    timeless = [
        [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in path.read_text().splitlines()]
        for path in (out / "metrics.jsonl", classifier / "metrics.jsonl")
    ]
    assert timeless[0] == timeless[1]


def test_a_given_test_table_is_used(run_directory: Path, paragraphs: list[tuple[str, str]], tmp_path: Path) -> None:
    files = {"train.jsonl": paragraphs[::2], "test.jsonl": [*paragraphs[1:40:2], paragraphs[0]]}
    for name, rows in files.items():
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    made = finetune_classify.run(
        FinetuneClassifyConfig(
            data=tmp_path / "train.jsonl",
            test=tmp_path / "test.jsonl",
            model=run_directory,
            out=tmp_path / "out",
            **SETTINGS | {"num_epochs": 0.5},
        )
    )
    assert made.facts["test"]["examples"] == 21
    assert made.facts["dropped"]["text of the test data"] == 1
    assert set(made.inputs) == {"model", "data", "test"}


@pytest.fixture
def words(paragraphs: list[tuple[str, str]], tmp_path: Path) -> Path:
    """Return texts that consist of one repeated word. Even a random model's hidden states separate such texts."""
    words, path = ("yes", "no"), tmp_path / "words.jsonl"
    rows = [
        {"text": f"{text[:20]} {f'{words[n % 2]} ' * 8} it is", "label": words[n % 2]}
        for n, (text, _) in enumerate(paragraphs)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


WORSE = "Training lowered the validation accuracy from "
QUICKLY = SETTINGS | {"num_epochs": 1, "validation_fraction": 0.3, "baseline": False, "skip_loss_spikes": False}


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, diverged: bool) -> list[tuple[float, float, int]]:
    """Replace `significantly_worse` by a function with a fixed result, and return the recorded arguments.

    No learning rate is certain to diverge on every machine.
    """
    asked: list[tuple[float, float, int]] = []
    monkeypatch.setattr(classifier_plan, "significantly_worse", lambda *found: asked.append(found) or diverged)
    return asked


@pytest.mark.parametrize("diverged", [False, True])
def test_divergence_at_a_given_learning_rate_is_reported(
    run_directory: Path,
    words: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    judged: list[tuple[float, float, int]],
    diverged: bool,
) -> None:
    settings = QUICKLY | {"learning_rate": 20.0, "allow_high_learning_rate": True}
    finetune_classify.run(FinetuneClassifyConfig(data=words, model=run_directory, out=tmp_path / "out", **settings))
    said = " ".join(capsys.readouterr().err.split())
    ((before, after, texts),) = judged
    warning = f"{WORSE}{1 - before:.1%} to {1 - after:.1%} ({texts} texts). "
    assert before < 0.2 and texts > 100  # the fitted head predicts most labels correctly
    assert said.count(warning + "Lower the learning rate: --learning-rate 10.") == diverged, said


@pytest.mark.parametrize(("diverged", "halved"), [(False, 0), (True, 2)])
def test_divergence_at_the_default_learning_rate_restarts_training(
    run_directory: Path,
    words: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    judged: list[tuple[float, float, int]],
    halved: int,
) -> None:
    monkeypatch.setattr(fine_tuning, "ADAPTER_RATE_FACTOR", 0.1)
    settings = {key: value for key, value in QUICKLY.items() if not key.endswith("learning_rate")} | {
        "method": "merged"
    }
    out = tmp_path / "out"
    made = finetune_classify.run(FinetuneClassifyConfig(data=words, model=run_directory, out=out, **settings))
    said = " ".join(capsys.readouterr().err.split())
    assert (
        len({before for before, _, _ in judged}) == 1 and len(judged) == 1 + halved
    )  # each restart uses the same initial head
    assert said.count("Restarting at half the learning rates.") == halved, said
    assert said.count("from measured steps") == 1, said
    assert said.count(WORSE) == halved + (halved == 2), said
    assert json.loads((out / "plan.json").read_text()).get("rate_scale", 1) == 0.5**halved
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    # The log contains only the steps of the last attempt.
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert halved or made.facts["test"]["accuracy"]["value"] > 0.9


def test_a_classifier_truncates_texts_to_its_training_length(
    run_directory: Path, table: Path, paragraphs: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Longer texts would use positions that were not trained."""
    settings = SETTINGS | {"num_epochs": 0.1, "max_tokens": 16, "baseline": False}
    finetune_classify.run(FinetuneClassifyConfig(data=table, model=run_directory, out=tmp_path / "out", **settings))
    assert open_classifier(tmp_path / "out").longest == 16
    long = max((text for text, _ in paragraphs), key=len)
    beginning, whole = classify.run(ClassifyConfig(model=tmp_path / "out", texts=(long[:200], long)))
    assert beginning.probabilities == pytest.approx(whole.probabilities)


@pytest.mark.parametrize("better", [0, 1])
def test_a_classifier_uses_the_prompt_format_of_its_training(
    run_directory: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: int
) -> None:
    """The tokenizer stores the prompt format. The tokens of the format do not count as part of the text."""
    monkeypatch.setattr(initial_head, "_MIN_PROMPTS_PER_CONTEXT", 1)
    fits = [HeadFit(nats, 0.5, 0.0, 10) for nats in (2.0, 2.5 - better)]
    monkeypatch.setattr(initial_head, "best_prompt_format", lambda *_: (better, fits))
    out, settings = tmp_path / "out", SETTINGS | {"num_epochs": 0.1, "max_tokens": 16, "baseline": False}
    finetune_classify.run(FinetuneClassifyConfig(data=table, model=run_directory, out=out, **settings))
    opened, base = open_classifier(out), load_tokenizer(resolve_model(run_directory))
    expected = base.with_prompt(PROMPT_BEFORE, PROMPT_AFTER) if better else base
    assert opened.tokenizer.affixes == expected.affixes
    assert opened.longest == 16 + expected.num_added_tokens - base.num_added_tokens
    assert json.loads((out / "plan.json").read_text())["framed"] is bool(better)
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    (said,) = classify.run(ClassifyConfig(model=out, texts=(rows[0]["paragraph"],)))
    ids = expected.build_inputs(base.encode(rows[0]["paragraph"]), opened.longest)
    (shares,) = predict(opened.model, [ids], pad_id=base.pad_id)
    assert list(said.probabilities.values()) == pytest.approx(list(shares), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": Path("nowhere.csv")}, DataError, "no such file"),
        ({"label": "documents"}, ConfigError, "document"),
        ({"model": Path("nowhere")}, DataError, "no such directory"),
    ],
)
def test_invalid_settings_are_rejected_before_training(
    change: dict[str, Any], error: type[Exception], message: str, run_directory: Path, table: Path, tmp_path: Path
) -> None:
    given = {"data": table, "model": run_directory, "out": tmp_path / "out"} | change
    with pytest.raises(error, match=message):
        finetune_classify.run(FinetuneClassifyConfig(**given))
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_lines_are_labeled_as_they_arrive(classifier: Path) -> None:
    """An endless input is classified batch by batch. At most one batch is read ahead."""
    read: list[int] = []

    def lines() -> Any:
        for number in range(100):
            read.append(number)
            yield f"line {number}\n" if number % 2 else "\n"

    answered_after: list[int] = []
    config = ClassifyConfig(model=classifier, batch_size=5)
    kept = classify.run(config, lines=lines(), on_text=lambda _: answered_after.append(read[-1]))
    assert kept == []
    assert len(answered_after) == 50
    assert answered_after[0] < 11


def test_json_lines_and_text_lines(classifier: Path) -> None:
    labels = facts_of(classifier)["labels"]
    hostile = 'two\nlines, a tab\t, "quotes", \x1b[31m and <|endoftext|>'
    for as_json in (True, False):
        out: list[str] = []
        config = ClassifyConfig(model=classifier, texts=(hostile, "!", "x " * 5000))
        stream = io.StringIO()
        classify.run(config, on_text=out.append, json_lines=as_json, console=Console(stream=stream))
        assert len(out) == 3
        assert all(line.count("\n") == 1 and line.endswith("\n") for line in out)
        assert "1 text is longer" in stream.getvalue()
        if as_json:
            found = json.loads(out[0])
            assert found["text"] == hostile
            assert list(found["probabilities"]) == labels
            assert found["label"] == max(found["probabilities"], key=found["probabilities"].get)
        else:
            assert out[0].split("\t")[0] in labels
            assert "\x1b" not in out[0]


def test_standard_input_may_contain_invalid_utf8(classifier: Path) -> None:
    program = (
        "import sys; from groundup.commands.classify import *;"
        "run(ClassifyConfig(model=sys.argv[1]), on_text=sys.stdout.write, json_lines=True)"
    )
    given = "grüße\n".encode("latin-1") + b"second\n"
    command = [sys.executable, "-c", program, str(classifier)]
    done = subprocess.run(command, input=given, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line)["text"] for line in done.stdout.decode().splitlines()] == ["gr��e", "second"]
