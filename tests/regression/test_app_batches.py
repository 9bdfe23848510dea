"""Labels for all rows and tables with other column names are accepted.

In an earlier release, `apps intent --batch FILE --labels a,b` and a table with its text in the column `review` were
rejected.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from groundup.cli import cli
from groundup.core.errors import ConfigError
from groundup.hub import save_classifier, save_model
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer

NUM_ADJUSTMENTS = [
    {"id": 1, "review": "A fine and quiet place.", "stars": 5},
    {"id": 2, "review": "It broke at once, sadly.", "stars": 1},
]
MAILS = ["Where is my parcel?", "I want my money back."]


@pytest.fixture(scope="module")
def model(
    tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("model")
    made = tiny_model(tokenizer.vocab_size, context_length=512)
    save_model(directory, made, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory


@pytest.fixture
def batch(model: Path) -> Callable[..., Result]:
    def call(*arguments: str | Path, of: Path = model) -> Result:
        done = CliRunner().invoke(cli, ["apps", *map(str, arguments), "--model", str(of), "--max-tokens", "8"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return call


def rows_of(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a table in the format that the file name implies, and return its path."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        from openpyxl import Workbook

        book = Workbook()
        assert book.active is not None
        for cells in ([*rows[0]], *([*row.values()] for row in rows)):
            book.active.append(cells)
        book.save(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet", "xlsx"])
def test_the_only_column_of_text_is_taken_and_named(batch: Callable[..., Result], tmp_path: Path, suffix: str) -> None:
    done = batch("sentiment", "--batch", written(tmp_path / f"reviews.{suffix}", NUM_ADJUSTMENTS))
    rows = rows_of(done)
    assert [row["review"] for row in rows] == [row["review"] for row in NUM_ADJUSTMENTS]
    assert {row["output"] for row in rows} <= {"positive", "negative"}
    assert [int(row["id"]) for row in rows] == [1, 2], "each result must contain the id of its row"
    assert "text: using 'review', the only text column." in done.stderr


def test_a_value_of_an_option_holds_for_every_row(batch: Callable[..., Result], tmp_path: Path) -> None:
    table = written(tmp_path / "mails.csv", [{"text": text} for text in MAILS])
    rows = rows_of(batch("intent", "--batch", table, "--labels", "parcel,refund"))
    assert [set(row["probabilities"]) for row in rows] == [{"parcel", "refund"}] * 2
    rows = rows_of(batch("answer", "--batch", table, "--question", "What is it about?"))
    assert [row["output"] is not None for row in rows] == [True, True]
    questions = written(tmp_path / "questions.jsonl", [{"question": "Who?"}, {"question": "When?"}])
    asked = rows_of(batch("answer", "The council met on Monday.", "--batch", questions))
    assert [(row["question"], row["output"] is not None) for row in asked] == [("Who?", True), ("When?", True)]


def test_an_option_counts_before_a_column_of_its_name(batch: Callable[..., Result], tmp_path: Path) -> None:
    table = written(tmp_path / "mails.csv", [{"text": text, "labels": "cat,dog"} for text in MAILS])
    done = batch("intent", "--batch", table, "--labels", "parcel,refund")
    assert [set(row["probabilities"]) for row in rows_of(done)] == [{"parcel", "refund"}] * 2
    assert "ignoring the column 'labels'" in done.stderr
    rows = rows_of(batch("intent", "--batch", table))
    assert [set(row["probabilities"]) for row in rows] == [{"cat", "dog"}] * 2


def test_columns_are_mapped_to_inputs(batch: Callable[..., Result], tmp_path: Path) -> None:
    two = [{"Headline": "The tower clock strikes", "body": text, "ask for": "Who wrote it?"} for text in MAILS]
    table = written(tmp_path / "two.csv", two)
    mapped = ("--column", "text=body", "--column", "question=ask for")
    rows = rows_of(batch("answer", "--batch", table, *mapped))
    assert all(row["output"] is not None and row["body"] for row in rows)
    with pytest.raises(ConfigError) as caught:  # two columns contain text, and neither has the name of the input
        batch("answer", "--batch", table, "--question", "Who?")
    assert "Headline, body, ask for" in caught.value.value
    assert caught.value.fix == "Give --column text=COLUMN."
    with pytest.raises(ConfigError) as caught:  # without a classifier that has its own labels
        batch("intent", "--batch", table, "--column", "text=body")
    assert "--labels VALUE for all rows, or --column labels=COLUMN" in caught.value.fix
    assert caught.value.rule == "the inputs of intent are text, labels"


def test_numbers_of_a_spreadsheet_are_read_as_text(batch: Callable[..., Result], tmp_path: Path) -> None:
    table = written(tmp_path / "codes.xlsx", [{"text": 404}, {"text": "not found"}])
    assert [row["output"] is not None for row in rows_of(batch("sentiment", "--batch", table))] == [True, True]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("text", "must be INPUT=COLUMN"),
        ("txt=review", "Did you mean text=review?"),
        ("text=reveiw", "Did you mean text=review?"),
        ("text=nothing", "The columns are id, review, stars."),
    ],
)
def test_a_wrong_mapping_says_what_to_write(
    batch: Callable[..., Result], tmp_path: Path, given: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        batch("sentiment", "--batch", written(tmp_path / "reviews.csv", NUM_ADJUSTMENTS), "--column", given)
    assert said in str(caught.value)


def test_a_classifier_needs_no_labels(
    batch: Callable[..., Result], tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    decoder = tiny_model(tokenizer.vocab_size)
    made = SequenceClassifier(decoder.config, 2).eval().requires_grad_(False)
    directory = tmp_path / "classifier"
    save_classifier(directory, made, ("refund", "parcel"), pad_id=tokenizer.pad_id, bos_id=0, eos_id=0)
    tokenizer.save(directory)
    table = written(tmp_path / "mails.csv", [{"text": text} for text in MAILS])
    rows = rows_of(batch("intent", "--batch", table, of=directory))
    assert [set(row["probabilities"]) for row in rows] == [{"parcel", "refund"}] * 2
