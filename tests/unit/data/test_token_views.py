"""The displayed examples match training: each token once, with its role."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from chat_templates import GEMMA, LLAMA3, MISTRAL, ZEPHYR
from external_tokenizers import MAKERS, save
from groundup.core.types import Message, Role
from groundup.data.token_views import TokenView, role_table, view_conversation, view_text
from groundup.tokenizer import ChatTemplate, Tokenizer

TALK = [
    Message("user", "Name a colour, 😀 日本?"),
    Message("assistant", "Green, Grün."),
    Message("user", "Another one"),
    Message("assistant", "Red."),
]
PAIRS = {"llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "llama2": ZEPHYR}


def said(seen: TokenView, role: Role | None) -> str:
    return "".join(piece.text for piece in seen.pieces if piece.role == role)


def seen_by_others(kind: str, directory: Path, documents: Sequence[str]) -> tuple[TokenView, ChatTemplate]:
    save(directory, MAKERS[kind](documents), PAIRS[kind])
    tokenizer = Tokenizer.load(directory)
    template = ChatTemplate(tokenizer)
    return view_conversation(template, tokenizer, TALK), template


@pytest.mark.parametrize("kind", PAIRS)
def test_roles_of_tokens_in_other_templates(kind: str, tmp_path: Path, real_documents: list[str]) -> None:
    """A template may move the system prompt into the user's turn, or drop a turn."""
    seen, template = seen_by_others(kind, tmp_path, real_documents)
    assert [token for piece in seen.pieces for token in piece.ids] == template.encode(TALK)
    for role in ("user", "assistant"):
        words = "".join(message.content for message in TALK if message.role == role)
        assert said(seen, role).replace(" ", "").replace("▁", "") == words.replace(" ", "")
    learned = "".join(piece.text for piece in seen.pieces if piece.trained)
    assert "Green, Grün." in learned
    assert "colour" not in learned


def test_every_token_is_shown_once_and_counted(tokenizer: Tokenizer) -> None:
    messages = [Message("system", "Be brief."), *TALK, Message("user", "?"), Message("assistant", "<|im_end|> typed")]
    template = ChatTemplate(tokenizer)
    seen = view_conversation(template, tokenizer, messages)
    ids, trained = template.encode_labeled(messages)
    assert [token for piece in seen.pieces for token in piece.ids] == ids
    assert seen.trained == sum(trained)
    assert seen.counts().total() == len(ids)
    assert said(seen, "system") == "Be brief."
    assert said(seen, "user") == "Name a colour, 😀 日本?Another one?"
    assert "�" not in "".join(piece.text for piece in seen.pieces)
    specials = [piece.text for piece in seen.pieces if piece.special]
    assert specials == ["<|endoftext|>", *["<|im_start|>", "<|im_end|>"] * len(messages)]
    columns, rows = role_table([seen, seen])
    assert columns == ("", "tokens", "trained")
    assert rows[-1] == ("total", f"{2 * len(ids):,}", f"{2 * sum(trained):,}")
    assert {row[0]: row[2] for row in rows}["user"] == "0"


def test_trained_text_has_brackets_and_colors(tokenizer: Tokenizer) -> None:
    """Without colors, e.g. in a log, the brackets alone mark trained text."""
    parts = view_conversation(ChatTemplate(tokenizer), tokenizer, TALK[:2]).parts()
    assert "".join(text for text, _ in parts).endswith("assistant\n[[Green, Grün.<|im_end|>]]\n")
    coloured = "".join(text for text, style in parts if "green" in style)
    assert coloured == "[[Green, Grün.<|im_end|>]]"


def test_truncated_tokens_are_not_shown_as_trained(tokenizer: Tokenizer) -> None:
    whole = view_conversation(ChatTemplate(tokenizer), tokenizer, TALK)
    cut = view_conversation(ChatTemplate(tokenizer), tokenizer, TALK, longest=30)
    assert cut.counts().total() == 30
    assert cut.cut == whole.counts().total() - 30


def test_the_prompt_of_a_classifier_is_not_part_of_the_text(tokenizer: Tokenizer) -> None:
    framed = tokenizer.with_prompt("It says ", " or so")
    ids = framed.build_inputs(tokenizer.encode("that a long letter came today"), framed.num_added_tokens + 3)
    seen = view_text(framed, ids, len(framed.build_inputs(tokenizer.encode("that a long letter came today"))))
    assert said(seen, "user") == tokenizer.decode(tokenizer.encode("that a long letter came today")[:3])
    assert said(seen, None) == "<|endoftext|>It says  or so"
    assert seen.cut == len(tokenizer.encode("that a long letter came today")) - 3
