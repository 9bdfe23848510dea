"""Constrained decoding: each output of a random model is valid JSON for the schema, for any token limit."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import jsonschema
import pytest
import torch

from groundup.core.errors import ConfigError
from groundup.inference import Engine, GenerationRequest, Grammar, Sampling, complete_all
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    "required": ["value", "children"],
}
TREE = {
    "anyOf": [
        {"type": "array", "prefixItems": [{"$ref": "#/$defs/tree"}] * 2, "items": False, "minItems": 2},
        {"type": "integer"},
    ]
}
QUESTION = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "minLength": 3, "maxLength": 40},
        "options": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 4, "maxItems": 4},
        "answer": {"enum": ["A", "B", "C", "D"]},
    },
    "required": ["question", "options", "answer"],
    "additionalProperties": False,
}
FORMATS = {
    "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+x$"},
    "day": {"type": "string", "format": "date"},
    "mail": {"type": "string", "format": "email"},
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "questions": {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": QUESTION, "minItems": 1}},
        "required": ["questions"],
    },
    "any object": {"type": "object"},
    "anything": {},
    "a number alone": {"type": "number", "exclusiveMinimum": 0},
    "a bounded number": {"type": "integer", "minimum": 1000, "maximum": 20_000},
    "text or nothing": {"type": ["string", "null"]},
    "patterns": {"type": "object", "properties": FORMATS, "required": [*FORMATS]},
    "other alphabets": {
        "type": "object",
        "properties": {"größe": {"enum": ["klein", "groß", "巨大"]}, "t": {"type": "string", "maxLength": 5}},
        "required": ["größe", "t"],
    },
    "recursive": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "recursive on both sides": {"$defs": {"tree": TREE}, "$ref": "#/$defs/tree"},
    "a constant": {"const": {"a": [1, 2, {"b": None}]}},
    "names of one's own": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": {"type": "boolean"},
        "required": ["a", "z"],
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]
    },
}


def limits(grammar: Grammar, count: int) -> list[int]:
    """Return token limits from the minimum to one that is enough for most outputs."""
    drawn = random.Random(0)
    few = [grammar.min_tokens + drawn.randrange(40) for _ in range(count - 3)]
    return [grammar.min_tokens, grammar.min_tokens + 1, *few, 150]


@pytest.mark.parametrize("name", SCHEMAS)
def test_outputs_are_valid_for_any_token_limit(model: Transformer, tokenizer: Tokenizer, name: str) -> None:
    """A random model samples all allowed tokens: repeated names, partial characters, endless numbers and strings.

    Most of these outputs reach the token limit before their end.
    """
    schema = SCHEMAS[name]
    check = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    grammar = Grammar.of_schema(schema, tokenizer)
    requests = [
        GenerationRequest(prompt="x", grammar=grammar, max_tokens=most, seed=seed)
        for seed, most in enumerate(limits(grammar, 16))
    ]
    for request, done in zip(requests, complete_all(model, tokenizer, requests), strict=True):
        check.validate(json.loads(done.text))
        done.text.encode("utf-8")
        assert request.max_tokens is not None and len(done.token_ids) <= request.max_tokens
    written = {done.text for done in complete_all(model, tokenizer, requests[2:])}
    assert len(written) > (0 if "const" in schema else 5), "the same text for all seeds is no proof of anything"


def test_sampling_settings_do_not_affect_validity(model: Transformer, tokenizer: Tokenizer) -> None:
    """Filters for the most likely tokens could exclude all allowed tokens if they ran before the mask."""
    grammar = Grammar.of_schema(SCHEMAS["questions"], tokenizer)
    options: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"top_k": 1},
        {"top_p": 0.01},
        {"min_p": 1.0},
        {"repetition_penalty": 5.0, "presence_penalty": 90.0},
    ]
    requests = [
        GenerationRequest(prompt="x", grammar=grammar, sampling=Sampling(**each), max_tokens=120, seed=1)
        for each in options
    ]
    for done in complete_all(model, tokenizer, requests):
        jsonschema.validate(json.loads(done.text), SCHEMAS["questions"])


def test_engine_and_batch_give_the_same_output(engine: Engine, model: Transformer, tokenizer: Tokenizer) -> None:
    grammar = Grammar.of_schema(SCHEMAS["questions"], tokenizer)
    request = GenerationRequest(prompt="x", grammar=grammar, max_tokens=90, seed=5)
    pieces = list(engine.stream(request))
    (together,) = complete_all(model, tokenizer, [request])
    assert "".join(piece.text for piece in pieces) == together.text
    assert len(pieces) > 20, "it came in one piece"


def test_finish_reason_of_truncated_output(model: Transformer, tokenizer: Tokenizer) -> None:
    """An output that was completed because of the token limit is valid, but not the model's own."""
    short = Grammar.of_schema({"enum": [True]}, tokenizer)
    long = Grammar.of_schema({"type": "string", "minLength": 30}, tokenizer)
    whole, cut = complete_all(
        model,
        tokenizer,
        [
            GenerationRequest(prompt="x", grammar=short, max_tokens=50, seed=0),
            GenerationRequest(prompt="x", grammar=long, max_tokens=long.min_tokens, seed=0),
        ],
    )
    assert (whole.text, whole.finish_reason) == ("true", "stop")
    assert cut.finish_reason == "length"


def test_numbers_have_a_maximum_length(tokenizer: Tokenizer) -> None:
    """Small models can repeat a digit forever, and Python refuses to parse very long numbers."""
    grammar = Grammar.of_schema(
        {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, tokenizer
    )
    guide = grammar.start(6000, ())
    one = tokenizer.encode("1", continues=True)[0]
    written = b""
    while not guide.finished:
        logits_V = torch.zeros(tokenizer.vocab_size)
        logits_V[one] = 50.0
        written += tokenizer.token_bytes(guide.accept(int(guide.mask(logits_V).argmax())))
    assert len(str(json.loads(written)["n"])) == 64


def test_control_tokens_are_masked(tokenizer: Tokenizer) -> None:
    """Otherwise a JSON string could contain the end of a turn."""
    guide = Grammar.of_schema({"type": "string"}, tokenizer).start(50, ())
    guide.accept(tokenizer.encode('"', continues=True)[0])
    allowed_V = guide.mask(torch.zeros(tokenizer.vocab_size)) == 0
    assert int(allowed_V.sum()) > 500
    assert not allowed_V[sorted(tokenizer.control_tokens.values())].any()


DEEP: Any = {"type": "string"}
for _ in range(3000):
    DEEP = {"type": "array", "items": DEEP}
LAUGHS = {
    f"a{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/a{i + 1}"}] * 10, "minItems": 10} for i in range(30)
}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "http://127.0.0.1/schema.json"}, "only references within the schema"),
        ({"$ref": "file:///etc/passwd"}, "only references within the schema"),
        ({"$ref": "#/$defs/nowhere"}, "does not exist"),
        ({"$ref": "#"}, "no valid output"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no valid output"),
        ({"$defs": {**LAUGHS, "a30": {"type": "integer"}}, "$ref": "#/$defs/a0"}, "no valid output"),
        (DEEP, "maximum nesting is 64"),
        ({"enum": [f"choice {i}" for i in range(10_000)]}, "65,536"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 10**9}, "no valid output"),
        ({"type": "string", "minLength": 10**6}, "no valid output"),
        ({"type": "string", "pattern": "(.{0,1000}){0,1000}x"}, "pattern"),
        ({"type": "string", "pattern": "(a?){5000}a{5000}"}, "pattern"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijkl"]}, "pattern"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, "anyOf"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "Unsatisfiable"),
        ({"type": "strung"}, "strung"),
        ({"const": float("nan")}, "JSON"),
        (True, "JSON object"),
    ],
)
def test_unsupported_schemas_are_refused_quickly(tokenizer: Tokenizer, schema: Any, said: str) -> None:
    """Ignored keywords would give invalid output, and an endless search would block the server."""
    Grammar.of_schema({"type": "integer"}, tokenizer)  # compiles the vocabulary
    started = time.process_time()
    with pytest.raises(ConfigError) as refused:
        Grammar.of_schema(schema, tokenizer)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 700
    assert time.process_time() - started < 5


def test_a_schema_is_compiled_once(tokenizer: Tokenizer) -> None:
    assert Grammar.of_schema(QUESTION, tokenizer) is Grammar.of_schema(json.loads(json.dumps(QUESTION)), tokenizer)


def test_low_token_limits_and_stop_texts_are_refused(engine: Engine, tokenizer: Tokenizer) -> None:
    grammar = Grammar.of_schema(QUESTION, tokenizer)
    request = GenerationRequest(prompt="x", grammar=grammar, max_tokens=grammar.min_tokens - 1)
    with pytest.raises(ConfigError, match=f"max_tokens >= {grammar.min_tokens}"):
        engine.complete(request)
    with pytest.raises(ConfigError, match="stop"):
        GenerationRequest(prompt="x", grammar=grammar, stop=("}",))
