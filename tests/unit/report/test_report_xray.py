"""The page of what is trained: whole, safe, without a script, and with every token on it."""

from __future__ import annotations

import re

from made_up_run import HOSTILE
from page_reader import parse

from groundup.core.types import Message
from groundup.data.xray import view_conversation
from groundup.report.xray_page import render_xray
from groundup.tokenizer import ChatTemplate, Tokenizer


def page(tokenizer: Tokenizer, *contents: str) -> str:
    talks = [[Message("user", content), Message("assistant", f"{content} indeed")] for content in contents]
    template = ChatTemplate(tokenizer)
    return render_xray("a name", "I read 2 rows.", [view_conversation(template, tokenizer, talk) for talk in talks])


def test_examples_cannot_become_markup_or_run(tokenizer: Tokenizer) -> None:
    """The page is opened in a browser, and the examples come from anywhere."""
    hostile = f"<script>alert(1)</script><img src=x onerror=alert(1)>{HOSTILE}"
    whole = page(tokenizer, hostile)
    tree = parse(whole)
    assert "<script" not in whole
    assert "<img" not in whole
    assert "script-src" not in whole  # default-src 'none' forbids all
    assert "default-src &#x27;none&#x27;" in whole
    assert tree is not None


def test_learned_tokens_are_marked_and_special_ones_framed(tokenizer: Tokenizer) -> None:
    whole = page(tokenizer, "Why?")
    learned = re.findall(r'<span class="learned[^"]*"[^>]*>([^<]*)</span>', whole)
    assert "".join(learned).replace("&lt;", "<").replace("&gt;", ">") == "Why? indeed<|im_end|>"
    specials = re.findall(r'<span class="[^"]*special"[^>]*>([^<]*)</span>', whole)
    assert len(specials) == 5
    assert "prefers-color-scheme: dark" in whole
