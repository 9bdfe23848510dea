"""Request parameters that constrain the output: a JSON schema, a regex, a list of choices or a grammar.

OpenAI's API has `response_format`. vLLM has `structured_outputs`, and older versions had the parameters `guided_...`.
llama.cpp's server has `json_schema` and `grammar`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from groundup.inference import Grammar
from groundup.serve.openai.body import Body, Lenient, only
from groundup.tokenizer import Tokenizer


def _parsed(value: Any) -> Any:
    """Return the JSON schema of a request, which some clients send as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise PydanticCustomError("value_error", "must be a JSON schema") from None


Schema = Annotated[dict[str, Any], BeforeValidator(_parsed)]
Choices = Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar that a request contains.

    Attributes:
        param: Name of the parameter.
        value: JSON schema, regex, choices or grammar.
        compile: Function that compiles the value for a tokenizer. It raises ConfigError if the value is invalid.
    """

    param: str
    value: Any
    compile: Callable[[Any, Tokenizer, threading.Event | None], Grammar]

    @property
    def schema(self) -> dict[str, Any] | None:
        """The value if it is a JSON schema."""
        return self.value if self.compile == Grammar.of_schema else None


class NamedSchema(Body):
    """A named JSON schema that the response must match."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool = True  # accepted for compatibility: the schema is always enforced


class ResponseFormat(Body):
    """Format of the response: text, any JSON object, or JSON that matches a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    object_schema: dict[str, Any] | None = Field(None, alias="schema")  # of llama.cpp, for type "json_object"

    @model_validator(mode="after")
    def _schema_matches_type(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            rule = 'type "json_schema" requires json_schema = {"name", "schema"}, and other types do not have it'
            raise PydanticCustomError("value_error", rule, {"param": "response_format.json_schema"})
        if self.object_schema is not None and self.type != "json_object":
            rule = 'only type "json_object" has a schema here; type "json_schema" has it in json_schema'
            raise PydanticCustomError("value_error", rule, {"param": "response_format.schema"})
        return self

    @property
    def required_schema(self) -> dict[str, Any] | None:
        """JSON schema that the response must match, or None if the response is text."""
        if self.json_schema is not None:
            return self.json_schema.json_schema
        return (self.object_schema or {"type": "object"}) if self.type == "json_object" else None


class StructuredOutputs(Lenient):
    """vLLM's parameter `structured_outputs`, which contains one constraint."""

    schema_value: Schema | None = Field(None, alias="json")
    json_object: bool = False
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    structural_tag: only() = None  # type: ignore[valid-type]


class ConstrainedBody(Lenient):
    """Parameters that constrain the output. A request has at most one of them."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    json_schema: Schema | None = None
    grammar: str | None = None

    @model_validator(mode="after")
    def _one_constraint(self) -> ConstrainedBody:
        given = self._constraints()
        if len(given) > 1:
            rule = f"cannot be combined with {given[0].param}: give one constraint"
            raise PydanticCustomError("value_error", rule, {"param": given[1].param})
        return self

    @property
    def constraint(self) -> Constraint | None:
        """The constraint of the output, or None if the output is text."""
        return next(iter(self._constraints()), None)

    def _constraints(self) -> list[Constraint]:
        form, outputs = self.response_format, self.structured_outputs or StructuredOutputs()
        schemas = {
            "response_format": None if form is None else form.required_schema,
            "structured_outputs.json": outputs.schema_value,
            "structured_outputs.json_object": {"type": "object"} if outputs.json_object else None,
            "guided_json": self.guided_json,
            "json_schema": self.json_schema,
        }
        found = [
            *(Constraint(param, schema, Grammar.of_schema) for param, schema in schemas.items()),
            Constraint("structured_outputs.regex", outputs.regex, Grammar.of_regex),
            Constraint("structured_outputs.choice", outputs.choice, Grammar.of_choice),
            Constraint("structured_outputs.grammar", outputs.grammar, Grammar.of_lark),
            Constraint("guided_regex", self.guided_regex, Grammar.of_regex),
            Constraint("guided_choice", self.guided_choice, Grammar.of_choice),
            Constraint("guided_grammar", self.guided_grammar, Grammar.of_lark),
            Constraint("grammar", self.grammar, Grammar.of_lark),
        ]
        return [each for each in found if each.value is not None]
