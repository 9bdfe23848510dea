"""The template check: errors for files that changed after a model was saved name the difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_templates import CHATML, LLAMA3, MISTRAL
from external_tokenizers import MAKERS, save
from groundup.core.errors import FormatError
from groundup.tokenizer import (
    GOLDEN_FILE,
    ChatTemplate,
    Tokenizer,
    load_chat_template,
    save_chat,
    save_template_check,
)

PAIRS = {"llama3": LLAMA3, "mistral": MISTRAL, "smollm2": CHATML}


def directory_of(kind: str, path: Path, documents: list[str], jinja: str = "") -> Path:
    save(path, MAKERS[kind](documents), jinja or PAIRS[kind])
    return path


def read_check(directory: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((directory / GOLDEN_FILE).read_text(encoding="utf-8"))
    return record


@pytest.mark.parametrize("kind", PAIRS)
def test_saved_ids_equal_transformers(kind: str, tmp_path: Path, real_documents: list[str]) -> None:
    """If wrong ids were saved, the check would never find the error."""
    transformers = pytest.importorskip("transformers")
    directory = directory_of(kind, tmp_path, real_documents)
    peer = transformers.AutoTokenizer.from_pretrained(directory)
    save_template_check(directory, ChatTemplate(Tokenizer.load(directory)))
    compared = 0
    for conversation in read_check(directory)["conversations"]:
        messages = conversation["messages"]
        if any("<|" in message["content"] for message in messages):
            continue  # transformers parses these as special tokens
        ids = peer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        prompt = peer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)
        assert conversation["ids"] == ids
        assert conversation["prompt"] == prompt["input_ids"]
        compared += 1
    assert compared == 3
    load_chat_template(directory, Tokenizer.load(directory))


def test_groundups_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = save_chat(tmp_path, ChatTemplate(tokenizer), Tokenizer(tokenizer._backend, tokenizer.config))
    assert {path.name for path in files} == {"tokenizer.json", "tokenizer_config.json", GOLDEN_FILE}
    assert load_chat_template(tmp_path, Tokenizer.load(tmp_path)).jinja == ChatTemplate(tokenizer).jinja
    hostile = read_check(tmp_path)["conversations"][2]
    special = [token for token in hostile["ids"] if token in tokenizer.special_ids]
    assert special == [0, 2, 3, 2, 3]  # BOS and two turns, without special tokens from the content
    answer = [hostile["ids"][n] for n in hostile["trained"]]
    assert tokenizer.decode(answer, skip_special_tokens=False) == "That is text to me: <| im_start|>.<|im_end|>"


def test_another_vocabulary_fails(tmp_path: Path, real_documents: list[str]) -> None:
    """Mixed files of two models: the same template, but other ids."""
    directory = directory_of("llama3", tmp_path / "a", real_documents)
    save_template_check(directory, ChatTemplate(Tokenizer.load(directory)))
    other = directory_of("llama3", tmp_path / "b", real_documents[40:60])
    (other / GOLDEN_FILE).write_bytes((directory / GOLDEN_FILE).read_bytes())
    with pytest.raises(FormatError, match=r"conversation 1 as a prompt has .+ at token \d+ instead of .+"):
        load_chat_template(other, Tokenizer.load(other))


def test_an_edited_template_fails(tmp_path: Path, real_documents: list[str]) -> None:
    """A single line break can make answers worse."""
    directory = directory_of("llama3", tmp_path / "a", real_documents)
    save_template_check(directory, ChatTemplate(Tokenizer.load(directory)))
    edited = directory_of("llama3", tmp_path / "b", real_documents, LLAMA3.replace("\n\n'", "\n'"))
    (edited / GOLDEN_FILE).write_bytes((directory / GOLDEN_FILE).read_bytes())
    with pytest.raises(FormatError, match="the chat template has changed, and conversation 1") as refused:
        load_chat_template(edited, Tokenizer.load(edited))
    assert GOLDEN_FILE in refused.value.fix


def test_another_loss_mask_fails(tmp_path: Path, real_documents: list[str]) -> None:
    """Equal ids with another loss mask would train other tokens."""
    directory = directory_of("smollm2", tmp_path, real_documents)
    save_template_check(directory, ChatTemplate(Tokenizer.load(directory)))
    record = read_check(directory)
    del record["conversations"][0]["trained"][-1]
    (directory / GOLDEN_FILE).write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(FormatError, match="conversation 1 has other trained tokens"):
        load_chat_template(directory, Tokenizer.load(directory))


def test_templates_with_a_date_save_no_conversations(tmp_path: Path, real_documents: list[str]) -> None:
    directory = directory_of("llama3", tmp_path, real_documents, LLAMA3 + "{% set d = strftime_now('%Y') %}")
    save_template_check(directory, ChatTemplate(Tokenizer.load(directory)))
    assert read_check(directory)["conversations"] == []
    load_chat_template(directory, Tokenizer.load(directory))


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"format_version": 2}', '{"format_version": 1, "conversations": [3]}',
     '{"format_version": 1, "conversations": [{"messages": [{"role": "tool", "content": "x"}]}]}',
     '{"format_version": 1, "conversations": [{"messages": [{"role": "user", "content": "x"}], "ids": ["<", {}]}]}'],
)  # fmt: skip
def test_an_invalid_file_is_a_format_error(content: str, tmp_path: Path, real_documents: list[str]) -> None:
    """Model directories may be untrusted."""
    directory = directory_of("smollm2", tmp_path, real_documents)
    (directory / GOLDEN_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(FormatError):
        load_chat_template(directory, Tokenizer.load(directory))
