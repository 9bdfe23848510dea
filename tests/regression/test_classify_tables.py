"""`groundup classify` reads tables, rejects empty texts and shows novelty scores.

Earlier releases did not read tables, classified empty texts and had no novelty score.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.apps import Catalog
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.commands import classify
from groundup.commands.classify import ClassifyConfig
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.hub import save_classifier
from groundup.hub.loading import open_classifier
from groundup.inference.novelty import NOVELTY_FILE, Novelty
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer

ENGLISH, GIBBERISH = "The statement is used to raise an exception", "xqzv kjwq zzpf qqwx"


@pytest.fixture(scope="module")
def classifier(
    tokenizer: Tokenizer,
    tiny_model: Callable[..., Transformer],
    real_documents: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return a classifier with random weights but with a real novelty score."""
    directory = tmp_path_factory.mktemp("models") / "classifier"
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    save_classifier(directory, model, ("law", "music"), pad_id=tokenizer.pad_id, bos_id=0, eos_id=0)
    tokenizer.save(directory)
    Novelty.fit([p for text in real_documents[:40] for p in text.split("\n\n")], seed=0).save(directory)
    return directory


@pytest.fixture(scope="module")
def older(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a classifier as earlier releases wrote it, which has no novelty score."""
    directory = tmp_path_factory.mktemp("older")
    for path in classifier.iterdir():
        if path.name != NOVELTY_FILE:
            (directory / path.name).write_bytes(path.read_bytes())
    return directory


def classified(directory: Path, **settings: Any) -> tuple[list[str], str]:
    lines: list[str] = []
    told = io.StringIO()
    json_lines = settings.pop("json_lines", False)
    config = ClassifyConfig(model=directory, device="cpu", **settings)
    classify.run(config, console=Console(stream=told), on_text=lines.append, json_lines=json_lines)
    return lines, told.getvalue()


@pytest.mark.parametrize("text", ["", "  \n", "\u200b"])
def test_an_empty_text_is_refused(classifier: Path, text: str) -> None:
    with pytest.raises(DataError, match="visible character"):
        classified(classifier, texts=(ENGLISH, text))
    runner = ClassifierRunner(open_classifier(classifier, device="cpu"))
    with pytest.raises(ConfigError, match="missing"):
        runner.run(Catalog()["sentiment"].app, {"text": text})


def test_lines_show_the_novelty(classifier: Path) -> None:
    lines, told = classified(classifier, texts=(ENGLISH, GIBBERISH))
    cells = [line.rstrip("\n").split("\t") for line in lines]
    assert [len(each) for each in cells] == [4, 4]
    assert float(cells[0][2]) < 1
    assert cells[1][2].endswith(" unlike")
    assert "1 of 2 texts have a novelty score above 1" in told
    lines, _ = classified(classifier, texts=(ENGLISH, GIBBERISH), json_lines=True)
    found = [json.loads(line) for line in lines]
    assert [each["unlike"] for each in found] == [False, True]
    assert found[0]["novelty"] < 1 < found[1]["novelty"]


def test_an_older_classifier_says_that_it_has_none(older: Path) -> None:
    lines, told = classified(older, texts=(ENGLISH,), json_lines=True)
    found = json.loads(lines[0])
    assert found["label"] in ("law", "music")
    assert (found["novelty"], found["unlike"]) == (None, None)
    assert "Novelty is unknown" in " ".join(told.split())
    runner = ClassifierRunner(open_classifier(older, device="cpu"))
    done = runner.run(Catalog()["sentiment"].app, {"text": ENGLISH})
    assert any("Novelty is unknown" in note for note in done.notes)


def test_an_application_shows_the_novelty(classifier: Path) -> None:
    runner = ClassifierRunner(open_classifier(classifier, device="cpu"))
    app = Catalog()["sentiment"].app
    done = runner.run_many(app, [{"text": ENGLISH}, {"text": GIBBERISH}, {"text": " "}])
    assert not isinstance(done[0], GroundupError)
    assert not isinstance(done[1], GroundupError)
    assert isinstance(done[2], GroundupError)
    assert (done[0].unlike, done[1].unlike) == (False, True)
    assert any("differs from the training texts" in note for note in done[1].notes)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table that already has a column "label" and contains a row without text."""
    path = tmp_path / "mails.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [("1", "a", ENGLISH), ("2", "b", " "), ("3", "c", GIBBERISH)]
        csv.writer(file).writerows([("id", "label", "body"), *rows])
    return path


@pytest.mark.parametrize("text", ["body", None, "{id}: {body}"])
def test_a_table_gets_labels(classifier: Path, table: Path, tmp_path: Path, text: str | None) -> None:
    out = tmp_path / "found.csv"
    lines, told = classified(classifier, batch=table, text=text, out=out)
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert lines == []
    assert [(row["id"], row["label"], row["body"]) for row in rows][::2] == [("1", "a", ENGLISH), ("3", "c", GIBBERISH)]
    assert rows[0]["predicted_label"] in ("law", "music")
    assert 0.5 <= float(rows[0]["probability"]) <= 1
    assert [row["unlike"] for row in rows][::2] == ["false", "true"]
    if text != "{id}: {body}":
        assert rows[1]["predicted_label"] == ""
        assert rows[1]["error"]
        assert "1 of 3 rows" in told


def test_a_table_gives_json_lines_with_all_probabilities(classifier: Path, table: Path) -> None:
    lines, _ = classified(classifier, batch=table)
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert set(rows[0]["probabilities"]) == {"law", "music"}
    assert rows[0]["novelty"] < 1 < rows[2]["novelty"]
    assert rows[1]["predicted_label"] is None


def test_what_does_not_go_together_is_refused(classifier: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="column"):
        classified(classifier, batch=table, text="boddy")
    with pytest.raises(ConfigError, match="either texts or --batch"):
        classified(classifier, batch=table, texts=("a",))
    with pytest.raises(ConfigError, match="--out requires --batch"):
        classified(classifier, texts=("a",), out=tmp_path / "x.csv")
