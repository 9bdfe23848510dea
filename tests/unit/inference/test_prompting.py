"""Prompt formats encode a conversation in the same way for chat and evaluation."""

from __future__ import annotations

import math

from groundup.core.types import Message
from groundup.inference.prompting import ChatFormat, TextFormat, best_candidate, greedy_request, plain_formats
from groundup.tokenizer import ChatTemplate, Tokenizer

TALK = [Message("user", "Why?"), Message("assistant", "So."), Message("user", "Oh?")]


def test_text_prompts_end_before_the_answer(tokenizer: Tokenizer) -> None:
    questions, *_, one_line = plain_formats(tokenizer)
    assert questions.text(TALK) == "Q: Why?\nA: So.\nQ: Oh?\nA:"
    assert one_line.text(TALK) == "Why? So. Oh?"


def test_a_base_model_continues_the_users_text(tokenizer: Tokenizer) -> None:
    """The prompt ends with the user's text, even with a trailing space. The user's next text starts a new line."""
    messages = [Message("user", "It was "), Message("assistant", "a dark night."), Message("user", "And ")]
    assert TextFormat(tokenizer).text(messages) == "It was a dark night.\nAnd "
    assert not TextFormat(tokenizer).supports_system


def test_requests_have_the_stop_settings_of_their_format(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(tokenizer)
    chat = greedy_request(ChatFormat(template), TALK, 5)
    assert chat.prompt == tuple(template.encode(TALK, add_generation_prompt=True))
    assert (chat.stop_ids, chat.stop, chat.is_reply) == (template.stop_ids, (), True)
    lines, paragraphs, *_ = plain_formats(tokenizer)
    plain = greedy_request(lines, TALK, 5)
    assert plain.prompt == tuple(tokenizer.encode_prompt(lines.text(TALK)))
    assert (plain.stop_ids, plain.stop, plain.is_reply) == (None, ("\n",), False)
    assert greedy_request(paragraphs, TALK, 5).stop == ("\n\n",)


def test_the_best_candidate_has_the_lowest_finite_loss() -> None:
    assert best_candidate("abcd", {"a": 3.0, "b": math.nan, "c": 1.0, "d": 1.0}.__getitem__)[0] == "c"
    assert best_candidate("ab", lambda _: math.inf) == ("a", [math.inf, math.inf])
