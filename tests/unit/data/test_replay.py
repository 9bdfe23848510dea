"""Replay: the data that is mixed into fine-tuning, its fraction, and its effect against forgetting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import compare, finetune_instruct
from groundup.core import artifact
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Message
from groundup.data.conversations.replay import replay_examples
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="module")
def texts(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(sorted(real_documents, key=len)[-12:]):
        (directory / f"{number}.txt").write_text(text, encoding="utf-8")
    return directory


def test_the_fraction_counts_trained_tokens(texts: Path, template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """Prompts are not trained, so a fraction of all tokens would differ."""
    told = [template.encode_labeled([Message("user", "Why? " * 40), Message("assistant", "So it is.")])] * 60
    labels = sum(sum(trained) for _, trained in told)
    mixed = replay_examples(texts, 0.4, told, template, tokenizer, 128)
    share = sum(sum(trained) for _, trained in mixed)
    assert share / (share + labels) == pytest.approx(0.4, abs=0.1)
    whole = "".join(path.read_text(encoding="utf-8") for path in texts.iterdir())
    for ids, trained in mixed:
        assert len(ids) <= 128
        assert ids[0] == tokenizer.bos_id
        assert list(trained) == [False] + [True] * (len(ids) - 1)
        assert tokenizer.decode(list(ids[1:])).strip("\ufffd") in whole


def test_conversations_are_replayed_as_conversations(
    tmp_path: Path, template: ChatTemplate, tokenizer: Tokenizer, real_documents: list[str]
) -> None:
    """Read as text, a table of conversations would train a chat model to write JSON."""
    words = [text.split() for text in real_documents if len(text.split()) > 30]
    rows = [{"question": " ".join(w[:9]), "answer": " ".join(w[9:20])} for w in words]
    path = tmp_path / "general.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    told = [template.encode_labeled([Message("user", "Why?"), Message("assistant", "So it is.")])] * 20
    mixed = replay_examples(path, 0.5, told, template, tokenizer, 256)
    known = {row["answer"] for row in rows}
    for ids, trained in mixed:
        words_of = tokenizer.decode([i for i, t in zip(ids, trained, strict=True) if t]).strip()
        assert words_of in known


def test_too_little_text_is_rejected(tmp_path: Path, template: ChatTemplate, tokenizer: Tokenizer) -> None:
    (tmp_path / "short.txt").write_text("A line.", encoding="utf-8")
    told = [template.encode_labeled([Message("user", "Why?"), Message("assistant", "So it is. " * 30)])] * 9
    with pytest.raises(DataError, match="a replay fraction of 50% needs"):
        replay_examples(tmp_path / "short.txt", 0.5, told, template, tokenizer, 128)


def test_replay_reduces_forgetting(
    texts: Path, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer], tmp_path: Path, real_documents: list[str]
) -> None:
    """The same fine-tuning with and without replay: replay must improve the prediction of general text."""
    model = tiny_model(tokenizer.vocab_size, context_length=128)
    base = tmp_path / "base"
    save_model(base, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(base)
    rows = [{"question": f"What is {i} and {i}?", "answer": f"It is {2 * i}."} for i in range(160)]
    table = tmp_path / "sums.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "other.txt").write_text(sorted(real_documents, key=len)[-14][:4000], encoding="utf-8")

    def fine_tuned(name: str, **changes: Any) -> float:
        keys = {"data": str(table), "model": str(base), "out": str(tmp_path / name), "threads": 1, "compile": False}
        keys |= {"num_epochs": 3.0, "learning_rate_scale": 1.0, "num_evaluations": 0}
        finetune_instruct.run(load(finetune_instruct.FinetuneInstructConfig, keys | changes), console=QUIET)
        out = tmp_path / f"compare-{name}"
        pair = {"base": str(base), "fine_tuned": str(tmp_path / name), "out": str(out)}
        compare.run(load(compare.CompareConfig, pair | {"general": str(tmp_path / "other.txt")}), console=QUIET)
        (line,) = artifact.read(out).facts["lines"]
        return float(line["after"]["value"])

    plain, kept = fine_tuned("plain"), fine_tuned("kept", replay=str(texts), replay_fraction=0.5)
    assert kept < plain - 0.2
    replayed_facts = artifact.read(tmp_path / "kept").facts["replayed"]
    assert replayed_facts["tokens"] > 0
    assert artifact.read(tmp_path / "plain").facts["replayed"]["examples"] == 0
    with pytest.raises(ConfigError, match="replay is not set"):
        fine_tuned("wrong", replay_fraction=0.5)
