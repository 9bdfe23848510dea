"""`evaluate --data` rejects tables that do not match any task.

In an earlier release, it used the longest column of such a table as running text. A table of sentence pairs was scored
by its first column, and the compressors were run on this column. For a model with a chat template, one sentence of a
pair was used as the answer to the other sentence.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

from groundup.commands.evaluate import EvaluateConfig, run
from groundup.core.errors import ConfigError, DataError
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

PAIRS = [
    {"plain_sentence": f"Katherine can't help herself {i}.", "formal_sentence": f"Katherine can't help himself {i}."}
    for i in range(6)
]


@pytest.fixture(scope="module", params=["base", "chat"])
def directory(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    tiny_model: Callable[..., Transformer],
) -> Path:
    path = tmp_path_factory.mktemp("models") / request.param
    save_model(path, tiny_model(tokenizer.vocab_size), bos_id=0, eos_id=0)
    tokenizer.save(path)
    if request.param == "chat":
        file = path / "tokenizer_config.json"
        record = json.loads(file.read_text(encoding="utf-8")) | {"chat_template": ChatTemplate(tokenizer).jinja}
        file.write_text(json.dumps(record), encoding="utf-8")
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a table in the format that the suffix of the path implies, and return the path."""
    match path.suffix:
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        case ".gz":
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
        case ".json":
            path.write_text(json.dumps({"data": rows}), encoding="utf-8")
        case ".csv" | ".tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".xlsx":
            book = Workbook()
            for row in (list(rows[0]), *(list(each.values()) for each in rows)):
                book.active.append(row)
            book.save(path)
    return path


def evaluated(model: Path, data: Path, **settings: Any) -> dict[str, Any]:
    config = EvaluateConfig(model=model, data=data, samples=0, out=data.parent / "report", **settings)
    return run(config).facts


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.json", "t.csv", "t.tsv", "t.parquet", "t.xlsx"])
def test_pairs_of_sentences_are_refused_in_every_format(directory: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        evaluated(directory, write(tmp_path / name, PAIRS))
    assert "plain_sentence, formal_sentence" in caught.value.value
    for named in ("Parquet", "Excel", "choices and answer", "prompt and response", "text and label", "Markdown"):
        assert named in caught.value.rule
    assert "--set text=COLUMN" in caught.value.fix
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "It works.", "label": "good"}, {"text": "It broke.", "label": "bad"}],
        [{"question": "Who?", "option_a": "He did", "option_b": "She did", "right": "a"}] * 3,
        [{"text": "One document."}, {"text": "Another document."}],
        [{"premise": "It rains a lot.", "hypothesis": "It is wet outside.", "gold": 1}] * 3,
    ],
    ids=["labelled", "choices in columns", "texts", "inference"],
)
def test_tables_of_other_tasks_are_refused(directory: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="a table with the columns"):
        evaluated(directory, write(tmp_path / "t.jsonl", rows))


def test_conversations_are_for_models_that_chat(directory: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", [{"question": f"Who wrote {i}?", "answer": "Nobody knows."} for i in range(3)])
    if directory.name == "chat":
        assert evaluated(directory, data)["responses"] == 3
        return
    with pytest.raises(DataError, match="models with a chat template"):
        evaluated(directory, data)


def test_columns_that_are_named_are_read_as_answers(directory: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", PAIRS)
    named = {"prompt": "plain_sentence", "response": "formal_sentence"}
    if directory.name == "chat":
        assert evaluated(directory, data, columns=named)["columns"] == "plain_sentence -> formal_sentence"
        return
    with pytest.raises(ConfigError, match="no chat template"):
        evaluated(directory, data, columns=named)


def test_a_column_that_is_chosen_is_running_text(directory: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", PAIRS)
    for text, size in (("plain_sentence", 31), ("{plain_sentence}\\n{formal_sentence}", 63)):
        scored = evaluated(directory, data, text=text, measure="text")
        assert (scored["documents"], scored["bytes"]) == (6, 6 * size)
    with pytest.raises(ConfigError, match="Did you mean 'plain_sentence'") as caught:
        evaluated(directory, data, text="plain_sentense")
    assert "only plain_sentence, formal_sentence" in caught.value.value
    with pytest.raises(DataError):
        evaluated(directory, data, measure="text")


def test_text_files_are_scored_as_before(directory: Path, tmp_path: Path) -> None:
    data = tmp_path / "letter.txt"
    data.write_text("Dear reader, this is a letter.\n", encoding="utf-8")
    assert evaluated(directory, data)["documents"] == 1
    with pytest.raises(ConfigError, match="not a table"):
        evaluated(directory, data, text="text")


def test_tables_among_texts_are_left_out_and_named(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    write(folder / "pairs.csv", PAIRS)
    (folder / "a.md").write_text("# A note\n\nWith a sentence.", encoding="utf-8")
    (folder / "b.txt").write_text("Another note.", encoding="utf-8")
    assert evaluated(directory, folder)["documents"] == 2
    assert "skipping 1 table (pairs.csv)" in capsys.readouterr().err


def test_an_exported_chat_is_text(directory: Path, tmp_path: Path) -> None:
    """The chat can be read as text in only one way, so no column must be chosen in any format."""
    lines = [f"[01.02.24, 10:0{i}:00] {'Ann' if i % 2 else 'Bob'}: Message number {i}" for i in range(8)]
    data = tmp_path / "chat.txt"
    data.write_text("\n".join(lines), encoding="utf-8")
    assert evaluated(directory, data)["bytes"] > 100
