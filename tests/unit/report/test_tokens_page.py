"""The HTML page of tokenized examples: safe, without scripts, and complete."""

from __future__ import annotations

import re

from page_reader import parse
from synthetic_run import HOSTILE

from groundup.core.types import Message
from groundup.data.token_views import view_conversation
from groundup.report.tokens_page import render_tokens_page
from groundup.tokenizer import ChatTemplate, Tokenizer


def page(tokenizer: Tokenizer, *contents: str) -> str:
    talks = [[Message("user", content), Message("assistant", f"{content} indeed")] for content in contents]
    template = ChatTemplate(tokenizer)
    seen = [view_conversation(template, tokenizer, talk) for talk in talks]
    return render_tokens_page("a name", "I read 2 rows.", seen)


def test_examples_cannot_become_markup_or_run(tokenizer: Tokenizer) -> None:
    """Training examples are untrusted."""
    hostile = f"<script>alert(1)</script><img src=x onerror=alert(1)>{HOSTILE}"
    html = page(tokenizer, hostile)
    tree = parse(html)
    assert "<script" not in html
    assert "<img" not in html
    assert "script-src" not in html  # default-src 'none' forbids scripts
    assert "default-src &#x27;none&#x27;" in html
    assert tree is not None


def test_trained_and_special_tokens_are_marked(tokenizer: Tokenizer) -> None:
    html = page(tokenizer, "Why?")
    trained = re.findall(r'<span class="trained[^"]*"[^>]*>([^<]*)</span>', html)
    assert "".join(trained).replace("&lt;", "<").replace("&gt;", ">") == "Why? indeed<|im_end|>"
    specials = re.findall(r'<span class="[^"]*special"[^>]*>([^<]*)</span>', html)
    assert len(specials) == 5
    assert "prefers-color-scheme: dark" in html
