"""Grammars that need too much time, memory or stack end their own request only."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch

from groundup.core.errors import ConfigError
from groundup.inference import Engine, GenerationRequest, Grammar
from groundup.inference.grammar.trial import CancelledError
from groundup.tokenizer import Tokenizer

CHAIN = "\n".join(f"r{i}: r{i + 1}" for i in range(4000))
GBNF_CHAIN = "\n".join(f"r{i} ::= r{i + 1}" for i in range(4000))
REFERENCES = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{(i + 1) % 300}"}] * 2} for i in range(300)}
HOSTILE: dict[str, tuple[Any, Any, str]] = {
    "1.5 GB and 12 seconds": (Grammar.of_regex, "a?" * 20_000 + "b", "too complex"),
    "400 MB and 18 seconds": (Grammar.of_schema, {"type": "integer", "multipleOf": 999_983}, "too complex"),
    "stack overflow": (Grammar.of_lark, f"start: r0\n{CHAIN}\nr4000: 'x'".replace("'", '"'), "too complex"),
    "quadratic converter": (Grammar.of_lark, f"root ::= r0\n{GBNF_CHAIN}\nr4000 ::= [a]", "4,002 rules"),
    "slow search": (Grammar.of_lark, 'start: a{100000}\na: "x" | "y" b\nb: a', "in time"),
    "nested repeats": (Grammar.of_regex, "a{1000}{1000}", "no valid|too complex"),
    "long repeat": (Grammar.of_regex, "a{1000000000}", "no valid|too complex"),
    "nested groups": (Grammar.of_regex, "(" * 20_000 + "a" + ")" * 20_000, "regex"),
    "nested rules": (Grammar.of_lark, "start: " + "(" * 10_000 + '"a"' + ")" * 10_000, "nested"),
    "intersections": (Grammar.of_lark, "start: X\nX: /.*a.{12}/ & /.*b.{13}/ & /.*c.{14}/ & /.*d.{15}/", "fuel"),
    "rules that double": (Grammar.of_lark, "start: r0\n" + CHAIN.replace(": r", ": r0 r"), "grammar"),
    "alternatives": (Grammar.of_lark, "start: " + " | ".join(f'"word{i}"' for i in range(5000)), "grammar"),
    "endless references": (
        Grammar.of_schema,
        {"$defs": REFERENCES, "$ref": "#/$defs/d0"},
        "no valid|too complex",
    ),
    "properties": (Grammar.of_schema, {"properties": {f"p{i}": {} for i in range(2500)}, "type": "object"}, "schema"),
    "deep JSON in Lark": (Grammar.of_lark, 'start: %json {"a":' + "[" * 30_000 + "]" * 30_000 + "}", "recursion"),
    "other files": (Grammar.of_lark, '%import /etc/passwd\nstart: "a"', "grammar"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_in_bounded_time(tokenizer: Tokenizer, name: str) -> None:
    """The limits are CPU time: 1 second in the child process and 1 second in this one."""
    compile, value, said = HOSTILE[name]
    Grammar.of_choice(["a"], tokenizer)  # builds the vocabulary
    started = time.process_time()
    with pytest.raises(ConfigError, match=said) as refused:
        compile(value, tokenizer)
    assert time.process_time() - started < 5
    assert len(str(refused.value)) < 700
    assert Grammar.of_regex("[a-f]{3}", tokenizer).min_tokens, "the next grammar is compiled"


@pytest.mark.parametrize("pattern", ["(a+)+$", "((a|aa)+)+b", "(a|b)*a(a|b){20}"])
def test_regexes_that_explode_elsewhere_are_fast(tokenizer: Tokenizer, pattern: str) -> None:
    """llguidance computes derivatives lazily, so backtracking and large automata do not occur."""
    Grammar.of_choice(["a"], tokenizer)
    started = time.thread_time()
    guide = Grammar.of_regex(pattern, tokenizer).start(60, ())
    for _ in range(40):
        token = guide.accept(int(guide.mask(torch.randn(tokenizer.vocab_size)).argmax()))
        if token in guide.stop_ids or guide.finished:
            break
    assert time.thread_time() - started < 2


def test_compilation_can_be_cancelled(tokenizer: Tokenizer) -> None:
    Grammar.of_choice(["a"], tokenizer)
    cancelled, errors = threading.Event(), []

    def compile() -> None:
        try:
            Grammar.of_schema({"type": "integer", "multipleOf": 999_979}, tokenizer, cancelled)
        except CancelledError as error:
            errors.append(error)

    thread = threading.Thread(target=compile)
    thread.start()
    cancelled.set()
    thread.join(timeout=10)
    assert errors
    assert Grammar.of_regex("[a-e]{3}", tokenizer).min_tokens, "the next grammar is compiled"


def test_a_grammar_that_becomes_too_complex_ends_its_request_only(engine: Engine, tokenizer: Tokenizer) -> None:
    """This regex is simple at first, and has too many states after a few characters."""
    grammar = Grammar.of_regex(r"(.{1,9}\p{L}){1,300}END", tokenizer)
    request = GenerationRequest(prompt="x", grammar=grammar, max_tokens=300, seed=0, stop_ids=())
    other = engine.stream(GenerationRequest(prompt="The", max_tokens=40, seed=1))
    with pytest.raises(ConfigError, match="grammar"):
        for _ in engine.stream(request):
            pass
    assert sum(1 for _ in other) == 40
