"""Regexes, choices and context-free grammars: each output of a random model matches, for any token limit."""

from __future__ import annotations

import ast
import json
import random
import re
from typing import Any

import pytest
import torch

from groundup.core.errors import ConfigError
from groundup.inference import GenerationRequest, Grammar, complete_all
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

REGEXES = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    r"(Yes|No)( because [^.]{5,40}\.)?",
    r"<answer>[\s\S]*</answer>",  # the end can be found only in the pattern: any byte may come before it
    r"[\s\S]*xyz[\s\S]*END OF FILE",
    r"(a|b)*abb",
    r"\w+@\w+\.com\n",
    r"([0-9]{3}-){20}x",
    r"größe: \d+ (m|km)/h",
    r"[a-z]{90}",
)
CHOICES = ("positive", "negative", "neutral", "positively", 'größe "1"', "a.b*c", "new\nline", "/slash/")
EXPRESSION = """
root ::= expr
expr ::= term (("+" | "-") term)*
term ::= [1-9] [0-9]* | "(" expr ")"
"""
QUERY = """
start: "SELECT " columns " FROM " NAME (" WHERE " NAME " = " (NUMBER | TEXT))? ";"
columns: NAME (", " NAME)*
NAME: /[a-z_]+/
NUMBER: /[0-9]+/
TEXT: /'[^']*'/
"""
ARGUMENTS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS = rf"""
%llguidance {{}}
start: call* TEXT
call: begin %json {json.dumps(ARGUMENTS)} "\n</tool_call>"
begin[lazy]: TEXT "<tool_call>\n"
TEXT: /(.|\n)*/
"""


def outputs(grammar: Grammar, model: Transformer, tokenizer: Tokenizer, count: int = 12) -> list[str]:
    """Return outputs for token limits from the minimum upward."""
    drawn = random.Random(1)
    limits = [grammar.min_tokens or 1, *(grammar.min_tokens + drawn.randrange(1, 60) for _ in range(count - 1))]
    requests = [
        GenerationRequest(prompt="x", grammar=grammar, max_tokens=limit, seed=seed) for seed, limit in enumerate(limits)
    ]
    done = complete_all(model, tokenizer, requests)
    assert all(len(each.token_ids) <= limit for each, limit in zip(done, limits, strict=True))
    return [each.text for each in done]


@pytest.mark.parametrize("pattern", REGEXES)
def test_outputs_match_the_regex(model: Transformer, tokenizer: Tokenizer, pattern: str) -> None:
    texts = outputs(Grammar.of_regex(pattern, tokenizer), model, tokenizer)
    for text in texts:
        assert re.fullmatch(pattern, text, re.ASCII), text
    assert len(set(texts)) > 3


def test_the_output_is_one_of_the_choices(model: Transformer, tokenizer: Tokenizer) -> None:
    texts = outputs(Grammar.of_choice(CHOICES, tokenizer), model, tokenizer, count=60)
    assert set(texts) <= set(CHOICES)
    assert len(set(texts)) > 4


def test_outputs_match_a_context_free_grammar(model: Transformer, tokenizer: Tokenizer) -> None:
    """GBNF and Lark. The nesting must be closed at any limit."""
    for text in outputs(Grammar.of_lark(EXPRESSION, tokenizer), model, tokenizer, count=24):
        assert re.fullmatch(r"[0-9()+-]+", text)
        assert not re.search(r"[+-][+-]|\([+-]", text), "the grammar has no signs"
        ast.parse(text, mode="eval")
    query = re.compile(r"SELECT [a-z_]+(, [a-z_]+)* FROM [a-z_]+( WHERE [a-z_]+ = ([0-9]+|'[^']*'))?;")
    for text in outputs(Grammar.of_lark(QUERY, tokenizer), model, tokenizer, count=24):
        assert query.fullmatch(text), text


def test_json_is_enforced_after_a_marker_in_free_text(tokenizer: Tokenizer) -> None:
    """The grammar of tool calls: the model writes the marker, and from there the JSON is valid at any limit."""
    grammar = Grammar.of_lark(CALLS, tokenizer)
    assert grammar.min_tokens == 0
    written = tokenizer.encode("I look it up.<tool_call>\n", continues=True)
    for limit in range(len(written) + 20, len(written) + 120, 9):
        guide = grammar.start(limit, ())
        generator = torch.Generator().manual_seed(limit)
        ids: list[int] = []
        while len(ids) < limit and not guide.finished:
            logits_V = torch.randn(tokenizer.vocab_size, generator=generator)
            if len(ids) < len(written):
                logits_V[written[len(ids)]] = 50.0
            token = guide.accept(int(guide.mask(logits_V).argmax()))
            if token in guide.stop_ids:
                break
            ids.append(token)
        text = tokenizer.decode(ids)
        assert text.startswith("I look it up.<tool_call>\n")
        for call in re.findall(r"<tool_call>\n(.*?)(?:\n</tool_call>|$)", text, re.DOTALL):
            assert isinstance(json.loads(call)["city"], str)


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        (Grammar.of_regex, "(", "unclosed group"),
        (Grammar.of_regex, "", "1 to"),
        (Grammar.of_regex, r"(?=a)b", "look-around"),
        (Grammar.of_choice, [], "list of texts"),
        (Grammar.of_choice, "yes", "list of texts"),
        (Grammar.of_lark, "start: nothing", "nothing"),
        (Grammar.of_lark, "rot ::= [0-9]", "root"),
        (Grammar.of_lark, '{"grammars": []}', "GBNF"),
    ],
)
def test_invalid_grammars_are_refused(tokenizer: Tokenizer, call: Any, given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call(given, tokenizer)
