"""Constrained and unconstrained requests in the same batches: valid, and the same as alone."""

from __future__ import annotations

import json
import random
import re

import jsonschema

from groundup.inference import Completion, Engine, GenerationRequest, Grammar, Sampling
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "born": {"type": "string", "format": "date"},
        "height": {"type": "number", "minimum": 0.4, "maximum": 2.6},
        "children": {"type": "array", "items": {"$ref": "#/$defs/child"}, "maxItems": 3},
    },
    "required": ["name", "born", "height", "children"],
    "additionalProperties": False,
    "$defs": {"child": {"type": "object", "properties": {"name": {"type": ["string", "null"]}}, "required": ["name"]}},
}
SCHEMAS = (
    PERSON,
    {"type": "object"},
    {"type": "array", "items": {"enum": ["red", "green", 3, None]}, "minItems": 2, "maxItems": 9},
    {"anyOf": [{"type": "integer", "minimum": -5}, {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"}]},
)
DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"


def requests_of_all_kinds(tokenizer: Tokenizer, count: int) -> list[GenerationRequest]:
    """Return requests with JSON schemas, with a regex and without a grammar, greedy and seeded, in a fixed order."""
    drawn = random.Random(3)
    grammars = [*(Grammar.of_schema(each, tokenizer) for each in SCHEMAS), Grammar.of_regex(DAY, tokenizer), None]
    biases = tuple((token, drawn.choice([-100.0, 4.0, 100.0])) for token in range(5, 400, 23))
    styles = (
        Sampling(),
        Sampling(temperature=0),
        Sampling(top_p=0.7, repetition_penalty=1.3),
        Sampling(frequency_penalty=1.5, presence_penalty=0.5, logit_bias=biases),
    )
    requests = []
    for seed in range(count):
        grammar = grammars[seed % len(grammars)]
        least = 1 if grammar is None else grammar.min_tokens
        requests.append(
            GenerationRequest(
                prompt=f"Record {seed % 7}:",
                grammar=grammar,
                sampling=drawn.choice(styles),
                max_tokens=least + drawn.randrange(50),
                seed=seed,
            )
        )
    return requests


def run_together(engine: Engine, requests: list[GenerationRequest]) -> list[Completion]:
    """Run all requests at the same time."""
    streams = [engine.stream(request) for request in requests]
    return [Completion.of(list(stream), prompt_tokens=1) for stream in streams]


def check(done: Completion, number: int) -> None:
    """Validate an output with another library."""
    if number % 6 < len(SCHEMAS):
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.Draft202012Validator(SCHEMAS[number % 6], format_checker=checker).validate(json.loads(done.text))
    elif number % 6 == len(SCHEMAS):
        assert re.fullmatch(DAY, done.text)


def test_batched_outputs_are_valid_and_the_same_as_alone(model: Transformer, tokenizer: Tokenizer) -> None:
    requests = requests_of_all_kinds(tokenizer, 78)
    with Engine(model, tokenizer, max_active=16) as engine:
        together = run_together(engine, requests)
        alone = [engine.complete(request) for request in requests[::3]]
    for number, done in enumerate(together):
        check(done, number)
    assert [done.token_ids for done in together[::3]] == [done.token_ids for done in alone]
    assert len({done.text for done in together}) > 40
