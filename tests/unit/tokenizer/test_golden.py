"""The template lock: files that were changed after a model was written are found, and what changed is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_templates import CHATML, LLAMA3, MISTRAL
from foreign_tokenizers import MAKERS, save
from groundup.core.errors import FormatError
from groundup.tokenizer import GOLDEN_FILE, ChatTemplate, Tokenizer, locked_template, save_chat, save_golden

PAIRS = {"llama3": LLAMA3, "mistral": MISTRAL, "smollm2": CHATML}


def directory_of(kind: str, path: Path, documents: list[str], jinja: str = "") -> Path:
    save(path, MAKERS[kind](documents), jinja or PAIRS[kind])
    return path


def lock(directory: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((directory / GOLDEN_FILE).read_text(encoding="utf-8"))
    return told


@pytest.mark.parametrize("kind", PAIRS)
def test_the_ids_that_are_kept_are_those_of_transformers(kind: str, tmp_path: Path, real_documents: list[str]) -> None:
    """A lock that kept our own mistake would keep it for ever."""
    transformers = pytest.importorskip("transformers")
    directory = directory_of(kind, tmp_path, real_documents)
    peer = transformers.AutoTokenizer.from_pretrained(directory)
    save_golden(directory, ChatTemplate(Tokenizer.load(directory)))
    compared = 0
    for talk in lock(directory)["conversations"]:
        if any("<|" in message["content"] for message in talk["messages"]):
            continue  # in transformers these forge a turn
        ids = peer.apply_chat_template(talk["messages"], tokenize=True, return_dict=True)["input_ids"]
        prompt = peer.apply_chat_template(talk["messages"][:-1], add_generation_prompt=True, return_dict=True)
        assert talk["ids"] == ids
        assert talk["prompt"] == prompt["input_ids"]
        compared += 1
    assert compared == 3
    locked_template(directory, Tokenizer.load(directory))


def test_ours_with_its_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = save_chat(tmp_path, ChatTemplate(tokenizer), Tokenizer(tokenizer._backend, tokenizer.config))
    assert {path.name for path in files} == {"tokenizer.json", "tokenizer_config.json", GOLDEN_FILE}
    assert locked_template(tmp_path, Tokenizer.load(tmp_path)).jinja == ChatTemplate(tokenizer).jinja
    hostile = lock(tmp_path)["conversations"][2]
    special = [token for token in hostile["ids"] if token in tokenizer.special_ids]
    assert special == [0, 2, 3, 2, 3]  # BOS, two turns; nothing of what was typed
    answer = [hostile["ids"][n] for n in hostile["trained"]]
    assert tokenizer.decode(answer, skip_special_tokens=False) == "That is text to me: <| im_start|>.<|im_end|>"


def test_a_vocabulary_of_another_model_is_found(tmp_path: Path, real_documents: list[str]) -> None:
    """The files of two models, copied over each other: same template, other ids."""
    directory = directory_of("llama3", tmp_path / "a", real_documents)
    save_golden(directory, ChatTemplate(Tokenizer.load(directory)))
    other = directory_of("llama3", tmp_path / "b", real_documents[40:60])
    (other / GOLDEN_FILE).write_bytes((directory / GOLDEN_FILE).read_bytes())
    with pytest.raises(FormatError, match=r"conversation 1 as a prompt has .+ at token \d+, where .+ was"):
        locked_template(other, Tokenizer.load(other))


def test_an_edited_template_is_found_and_named(tmp_path: Path, real_documents: list[str]) -> None:
    """A space where there was none is enough to make answers worse."""
    directory = directory_of("llama3", tmp_path / "a", real_documents)
    save_golden(directory, ChatTemplate(Tokenizer.load(directory)))
    edited = directory_of("llama3", tmp_path / "b", real_documents, LLAMA3.replace("\n\n'", "\n'"))
    (edited / GOLDEN_FILE).write_bytes((directory / GOLDEN_FILE).read_bytes())
    with pytest.raises(FormatError, match="its chat template is another text, and conversation 1") as refused:
        locked_template(edited, Tokenizer.load(edited))
    assert GOLDEN_FILE in refused.value.fix


def test_other_labels_are_found(tmp_path: Path, real_documents: list[str]) -> None:
    """Equal ids with another mask: a model tuned further would learn other tokens than before."""
    directory = directory_of("smollm2", tmp_path, real_documents)
    save_golden(directory, ChatTemplate(Tokenizer.load(directory)))
    told = lock(directory)
    del told["conversations"][0]["trained"][-1]
    (directory / GOLDEN_FILE).write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(FormatError, match="conversation 1 is trained at other tokens"):
        locked_template(directory, Tokenizer.load(directory))


def test_a_template_with_todays_date_is_not_broken_tomorrow(tmp_path: Path, real_documents: list[str]) -> None:
    directory = directory_of("llama3", tmp_path, real_documents, LLAMA3 + "{% set d = strftime_now('%Y') %}")
    save_golden(directory, ChatTemplate(Tokenizer.load(directory)))
    assert lock(directory)["conversations"] == []
    locked_template(directory, Tokenizer.load(directory))


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"format_version": 2}', '{"format_version": 1, "conversations": [3]}',
     '{"format_version": 1, "conversations": [{"messages": [{"role": "tool", "content": "x"}]}]}',
     '{"format_version": 1, "conversations": [{"messages": [{"role": "user", "content": "x"}], "ids": ["<", {}]}]}'],
)  # fmt: skip
def test_what_is_no_lock_is_an_error_and_no_crash(content: str, tmp_path: Path, real_documents: list[str]) -> None:
    """Model directories come from anywhere."""
    directory = directory_of("smollm2", tmp_path, real_documents)
    (directory / GOLDEN_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(FormatError):
        locked_template(directory, Tokenizer.load(directory))
