"""`groundup finetune instruct` trains a base model on a table of real text and writes an output directory."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.commands.finetune_instruct import FinetuneInstructConfig, run
from groundup.core import artifact
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, FormatError
from groundup.core.types import Message
from groundup.evaluation.comparisons import after_training
from groundup.hub import load_model, save_model
from groundup.hub.loading import open_model
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

CONTEXT = 128


@pytest.fixture(scope="module")
def base(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    directory = tmp_path_factory.mktemp("models") / "base"
    model = tiny_model(tokenizer.vocab_size, context_length=CONTEXT)
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def rows(real_documents: list[str]) -> list[dict[str, Any]]:
    """Return rows whose questions are beginnings of real paragraphs and whose answers are the continuations.

    Some of the rows are invalid.
    """
    paragraphs = [" ".join(part.split()) for text in real_documents for part in text.split("\n\n")]
    pairs = [p.split(" ") for p in dict.fromkeys(paragraphs) if len(p.split(" ")) > 12][:240]
    made: list[dict[str, Any]] = [
        {"question": " ".join(w[:6]), "answer": " ".join(w[6:12]), "n": len(w)} for w in pairs
    ]
    return [*made, {"question": "Empty?", "answer": ""}, {"question": None, "answer": "No question."}]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tune(examples: Path, model: Path, out: Path, **changes: Any) -> artifact.Artifact:
    keys = {
        "data": str(examples),
        "model": str(model),
        "out": str(out),
        "threads": 1,
        "compile": False,
        "num_epochs": 2.0,
    }
    config = load(FinetuneInstructConfig, keys | {"learning_rate_scale": 1.0, "checkpoint_seconds": 0.0} | changes)
    return run(config, console=Console(quiet=True))


@pytest.fixture(scope="module")
def fine_tuned(table: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fine-tuned") / "chat"
    tune(table, base, out)
    return out


def test_the_artifact_records_the_data(fine_tuned: Path, rows: list[dict[str, Any]], tokenizer: Tokenizer) -> None:
    facts = artifact.read(fine_tuned).facts
    counts = facts["examples"]
    different = {(row["question"], row["answer"]) for row in rows}
    assert counts["train"] + counts["test"] == len(different) - 2
    assert counts["dropped"] == {"empty response": 1, "empty prompt": 1, "duplicate": len(rows) - len(different)}
    assert facts["columns"] == "question -> answer"
    assert facts["held_out"]["responses"] == counts["test"]
    answers = {row["question"]: row["answer"] for row in rows}
    for transcript in facts["transcripts"]:
        assert transcript["reference"] == answers[transcript["messages"][0]["content"]]
        assert [message["role"] for message in transcript["messages"]] == ["user", "assistant"]
    steps = [json.loads(line) for line in (fine_tuned / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["tokens_seen"] == facts["tokens_seen"]
    assert len(steps) == facts["plan"]["total_steps"]
    assert not (fine_tuned / "checkpoints").exists()


def test_fine_tuning_beats_the_base_model(fine_tuned: Path) -> None:
    """The weights are random, so two epochs are enough to beat the base model by more than the confidence interval."""
    held_out = artifact.read(fine_tuned).facts["held_out"]
    assert held_out["difference"]["interval"][1] < 0
    assert held_out["fine_tuned"]["loss"] < held_out["base"]["loss"]


def test_transformers_loads_the_directory(fine_tuned: Path, tokenizer: Tokenizer) -> None:
    """The chat template, the two tokens that end an answer, and the logits must be equal."""
    transformers = pytest.importorskip("transformers")
    peer = transformers.AutoModelForCausalLM.from_pretrained(fine_tuned)
    words = transformers.AutoTokenizer.from_pretrained(fine_tuned)
    ids = words.apply_chat_template([{"role": "user", "content": "Why <|im_end|>?"}], add_generation_prompt=True)
    ids = ids["input_ids"] if not isinstance(ids, list) else ids
    ours = open_model(fine_tuned, device="cpu")
    template = ChatTemplate(ours.tokenizer)
    assert ids == template.encode([Message("user", "Why <|im_end|>?")], add_generation_prompt=True)
    assert peer.generation_config.eos_token_id == list(ours.stop_ids) == list(template.stop_ids)
    with torch.no_grad():
        torch.testing.assert_close(
            peer(torch.tensor([ids])).logits, ours.model(torch.tensor([ids])), atol=1e-4, rtol=1e-4
        )


def test_a_finished_stage_is_skipped_and_new_data_runs_again(fine_tuned: Path, table: Path, base: Path) -> None:
    before = (fine_tuned / "model.safetensors").stat().st_mtime_ns
    tune(table, base, fine_tuned)
    assert (fine_tuned / "model.safetensors").stat().st_mtime_ns == before


def test_the_base_model_is_unchanged(
    fine_tuned: Path, base: Path, tokenizer: Tokenizer, tiny_model: Callable[..., Any]
) -> None:
    expected = tiny_model(tokenizer.vocab_size, context_length=CONTEXT).state_dict()
    for name, tensor in load_model(base).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert "chat_template" not in json.loads((base / "tokenizer_config.json").read_text())


def test_a_given_test_set_is_scored_and_not_trained_on(
    table: Path, base: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    test = tmp_path / "test.csv"
    asked = rows[:5]
    test.write_text(
        "question,answer\n" + "".join(f'"{r["question"]}",new\n' for r in asked if '"' not in r["question"])
    )
    count = sum('"' not in row["question"] for row in asked)
    facts = tune(table, base, tmp_path / "out", test=[str(test)], num_epochs=0.2).facts
    assert facts["held_out"]["responses"] == facts["examples"]["test"] == count
    assert facts["examples"]["dropped"]["prompt is in the test data"] == count


def test_the_number_of_scored_test_answers_is_limited(
    table: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring all answers of a large test set would take longer than the training."""
    monkeypatch.setattr(after_training, "_MAX_SCORED", 7)
    facts = tune(table, base, tmp_path / "out", num_epochs=0.2).facts
    assert facts["held_out"]["responses"] == 7 < facts["examples"]["test"]
    assert len({transcript["reference"] for transcript in facts["transcripts"]}) == 3


def test_long_examples_are_dropped_or_truncated(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    lines = [{"prompt": f"Question number {n}?", "response": "word " * (400 if n % 4 == 0 else 4)} for n in range(40)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    dropped = tune(data, base, tmp_path / "a", num_epochs=1.0).facts["examples"]
    assert 0 < dropped["dropped"]["longer than the context"] <= 10
    cut = tune(data, base, tmp_path / "b", num_epochs=1.0, truncate=True).facts["examples"]
    assert cut["train"] == dropped["train"] + dropped["dropped"]["longer than the context"]


def test_minutes_limit_the_run(table: Path, base: Path, tmp_path: Path) -> None:
    facts = tune(table, base, tmp_path / "out", num_epochs=1000.0, minutes=0.05).facts
    assert facts["epochs"] < 500
    assert facts["plan"]["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ('{"prompt": "a b", "response": "c"}\n', DataError, "1 example"),
        ('{"prompt": "a b", "response": ""}\n{"prompt": "", "response": "c"}\n', DataError, "2 rows dropped"),
        ('{"uno": "a b", "due": "c d", "tre": "e f"}\n' * 3, DataError, "no prompt and response column"),
        ('{"prompt": "' + "a b " * 900 + '", "response": "c"}\n{"prompt": "' + "b c " * 900 + '", "response": "d"}\n',
         DataError, "longer than"),
    ],
)  # fmt: skip
def test_data_without_trained_tokens_is_rejected(
    base: Path, tmp_path: Path, content: str, error: type[Exception], said: str
) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text(content, encoding="utf-8")
    with pytest.raises(error, match=said):
        tune(data, base, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_an_unknown_column_or_source_is_named_in_the_error(table: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'question'"):
        tune(table, base, tmp_path / "a", prompt="qestion")
    with pytest.raises(ConfigError, match=r"data\[0\]\.pth"):
        tune(table, base, tmp_path / "b", data=[{"kind": "folder", "pth": "x"}])
    with pytest.raises(DataError, match="no such"):
        tune(tmp_path / "absent.jsonl", base, tmp_path / "c")
    with pytest.raises(DataError, match="no such"):
        tune(table, tmp_path / "absent", tmp_path / "d")


def test_preview_shows_the_training_examples_and_exits(
    table: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option must not create a model directory and must not lock the output directory."""
    out = tmp_path / "chat"
    keys = {"data": str(table), "model": str(base), "out": str(out), "preview": True}
    made = run(load(FinetuneInstructConfig, keys), console=Console())
    assert not out.exists()
    assert list(made.outputs) == ["chat.tokens.html"]
    assert "<|im_end|>" in (tmp_path / "chat.tokens.html").read_text(encoding="utf-8").replace("&lt;", "<").replace(
        "&gt;", ">"
    )
    said = capsys.readouterr().err
    assert "trained tokens in [[ ]]" in said
    assert "<|im_end|>]]" in said
    for row in ("user", "assistant", "template", "total"):
        assert re.search(rf"^ *{row} +[\d,]+ +[\d,]+", said, re.MULTILINE), row


def test_the_output_contains_the_tokens_page(fine_tuned: Path) -> None:
    assert "tokens.html" in artifact.read(fine_tuned).outputs


def test_examples_with_chat_template_markup_are_rejected(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    lines = [{"prompt": f"[INST] Question {n}? [/INST]", "response": "Yes."} for n in range(20)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match="INST"):
        tune(data, base, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_modified_chat_template_is_rejected_by_every_command(fine_tuned: Path, table: Path, tmp_path: Path) -> None:
    """Chat, API, evaluation and export must use the same chat template as the training."""
    from groundup.commands import export_gguf
    from groundup.hub.loading import open_chat_model

    edited = tmp_path / "edited"
    shutil.copytree(fine_tuned, edited)
    config = json.loads((edited / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = config["chat_template"].replace("assistant\\n", "assistant:\\n")
    (edited / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    artifact.accept(edited / "artifact.json")
    with pytest.raises(FormatError, match="has changed"):
        open_chat_model(edited, "cpu", Console(quiet=True))
    with pytest.raises(FormatError, match="has changed"):
        export_gguf.run(
            export_gguf.ExportGgufConfig(model=edited, out=tmp_path / "m.gguf"), console=Console(quiet=True)
        )
    with pytest.raises(FormatError, match="has changed"):
        tune(table, edited, tmp_path / "again")
    assert not (tmp_path / "m.gguf").exists()


def test_early_stopping_restores_the_best_checkpoint(
    table: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In many epochs, the model memorizes the few examples, so the validation loss rises."""
    keys = {"data": str(table), "model": str(base), "out": str(tmp_path / "out"), "threads": 1, "compile": False}
    config = load(
        FinetuneInstructConfig,
        keys
        | {
            "num_epochs": 40.0,
            "learning_rate_scale": 6.0,
            "allow_high_learning_rate": True,
            "early_stopping_patience": 2,
        },
    )
    facts = run(config, console=Console()).facts
    said = capsys.readouterr().err
    assert "Early stopping at step" in said and "validation" in said and "loss" in said
    steps = len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert steps < facts["plan"]["total_steps"]


def test_the_best_checkpoint_is_selected_by_a_metric(
    table: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The validation loss may still fall although the answers no longer improve."""
    keys = {"data": str(table), "model": str(base), "out": str(tmp_path / "out"), "threads": 1, "compile": False}
    config = load(FinetuneInstructConfig, keys | {"num_epochs": 6.0, "learning_rate_scale": 3.0, "keep_best": "chrf"})
    facts = run(config, console=Console()).facts
    kept = re.search(r"best checkpoint \(step (\d+)\): validation chrf (0\.\d+)", capsys.readouterr().err)
    assert kept is not None
    assert 1 <= int(kept[1]) <= facts["plan"]["total_steps"] and float(kept[2]) > 0
    with pytest.raises(ConfigError, match="keep_best = true") as refused:
        load(FinetuneInstructConfig, keys | {"keep_best": True})
    assert "'loss'" in str(refused.value)
