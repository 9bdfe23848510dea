"""What an application is: a file that says what it takes, how a model is asked, and what must come out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator
from pydantic_core import PydanticCustomError

from groundup.core.config import Config, setting
from groundup.core.types import MetricName

FIELD = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
RESERVED = ("list", "run", "evaluate")  # words that come after `groundup apps` themselves
# Options of the command line, which inputs become, too.
_TAKEN = (
    "model",
    "apps",
    "batch",
    "column",
    "out",
    "json",
    "quiet",
    "seed",
    "device",
    "temperature",
    "max_tokens",
    "help",
)


class Input(Config):
    """One input of an application."""

    renamed: ClassVar[Mapping[str, str]] = {"least": "min", "most": "max"}

    name: str = setting(help="in prompts as {name}, on the command line as --name", pattern=r"^[a-z][a-z0-9_]*$")
    about: str = setting(help="what it is, in a few words")
    type: Literal["text", "line", "choice", "number", "labels"] = setting("line", help="text may be long, a line not")
    default: str | int | tuple[str, ...] | None = setting(None, help="without one it must be given; empty: may be")
    choices: tuple[str, ...] = setting((), help="of a choice: what there is to choose from")
    min: int = setting(0, help="minimum number of characters or labels, or smallest number", ge=0)
    max: int | None = setting(None, help="maximum number of characters or labels, or largest number", ge=1)
    example: str | int | tuple[str, ...] = setting("", help="for people who look at an empty form")

    @model_validator(mode="after")
    def _fits_together(self) -> Input:
        if (self.type == "choice") != bool(self.choices):
            raise _wrong(f"{self.name}: choices belong to an input of the type choice, which needs them")
        if self.type == "choice" and self.default is not None and self.default not in self.choices:
            raise _wrong(f"{self.name}: the default is one of the choices")
        kind = {"number": int, "labels": tuple}.get(self.type, str)
        if self.default is not None and not isinstance(self.default, kind):
            raise _wrong(f"{self.name}: the default of a {self.type} is a {kind.__name__}")
        if self.name in _TAKEN:
            raise _wrong(f"{self.name} is an option of every application: call the input otherwise")
        return self


class Shot(Config):
    """An example that models are shown."""

    inputs: dict[str, Any] = setting(help="name = value of each input")
    output: str = setting(help="what is right for them")


class Prompt(Config):
    """The prompts of an application. A line whose {inputs} are all empty is left out."""

    renamed: ClassVar[Mapping[str, str]] = {"part": "chunk", "base_part": "base_chunk"}

    user: str = setting(help="the question to a model with a chat template")
    system: str = setting("", help="what it is told before that")
    chunk: str = setting("", help="the question about a part of an input that is too long; default: the same")
    base: str = setting(help="the text that any other model goes on from; the output comes right after it")
    base_chunk: str = setting("", help="the same for a part; default: the same, with its examples")
    shots: tuple[Shot, ...] = setting((), help="examples for such a model")
    shots_in_chat: bool = setting(False, help="a model with a chat template gets them, too, as earlier turns")
    stop: tuple[str, ...] = setting(("\n\n",), help="where what it writes ends")


class OutputSettings(Config):
    """What comes out."""

    kind: Literal["text", "json", "label"] = setting("text", help="JSON follows the schema, always")
    json_schema: dict[str, Any] = setting({}, help='of JSON; "{count}" stands for the number of that input')
    distinct: tuple[str, ...] = setting((), help="of JSON: lists in which nothing may stand twice; else it asks again")
    lettered: tuple[str, ...] = setting((), help="of JSON: lists whose items are shown as A, B, C, ...")
    labels: tuple[str, ...] = setting((), help="of a label: which there are")
    labels_from: str = setting("", help="or the input that names them")
    max_tokens: int = setting(300, help="at most", ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> OutputSettings:
        if (self.kind == "json") != bool(self.json_schema):
            raise _wrong("json_schema belongs to an output of the kind json, which needs it")
        for key, names in (("distinct", self.distinct), ("lettered", self.lettered)):
            for name in names:
                if name not in _lists_in(self.json_schema):
                    raise _wrong(f"{key} names properties of json_schema that are lists, and {name!r} is none")
        if (self.kind == "label") != (bool(self.labels) != bool(self.labels_from)):
            raise _wrong("an output of the kind label has either labels or labels_from, another has neither")
        return self


class Long(Config):
    """How an input that does not fit into the model's context is processed."""

    renamed: ClassVar[Mapping[str, str]] = {"how": "strategy"}

    input: str = setting(help="its name")
    strategy: Literal["reduce", "join", "end", "mean"] = setting(
        help="ask about parts, then about the answers; join these; read the end, and say so; of labels, the mean"
    )


class SamplingSettings(Config):
    """How words are drawn."""

    temperature: float = setting(0.7, help="0 takes the likeliest", ge=0, le=2)
    top_p: float = setting(0.95, help="draw from the likeliest that make up this mass", gt=0, le=1)
    repetition_penalty: float = setting(1.0, help="above 1 makes repetition less likely", gt=0, le=10)


class TestSet(Config):
    """Inputs with what is right for them."""

    __test__ = False  # pytest looks at names

    file: str = setting(help="JSON lines beside this file: the inputs, and output")
    metric: MetricName = setting(help="how outputs are compared with it")

    @field_validator("file")
    @classmethod
    def _beside(cls, value: str) -> str:
        if Path(value).name != value:
            raise _wrong("the test set lies beside the application's file, and is named without a folder")
        return value


class App(Config):
    """An application."""

    name: str = setting(help="for `groundup apps NAME`", pattern=_NAME)
    title: str = setting(help="for people")
    about: str = setting(help="what it is for, in a few words")
    group: Literal["create", "understand", "teach"] = setting(help="where it stands in lists")
    inputs: tuple[Input, ...] = setting(help="the first is the one that may come from a file", min_length=1)
    prompt: Prompt = setting(help="how a model is asked")
    output: OutputSettings = setting(OutputSettings(), help="what comes out")
    long: Long | None = setting(None, help="without it, what is too long is refused")
    decoding: SamplingSettings = setting(SamplingSettings(), help="how words are drawn")
    test: TestSet | None = setting(None, help="what it is evaluated on")

    @model_validator(mode="after")
    def _fits_together(self) -> App:
        names = [each.name for each in self.inputs]
        kinds = {each.name: each.type for each in self.inputs}
        if len(set(names)) < len(names):
            raise _wrong("inputs have names of their own")
        if self.name in RESERVED:
            raise _wrong(f"{', '.join(RESERVED)} are commands: call the application otherwise")
        for template in self.templates:
            for name in FIELD.findall(template):
                if name not in names:
                    raise _wrong(f"{{{name}}} in a prompt is no input: {', '.join(names)}")
        for name in number_inputs(self.output.json_schema):
            if kinds.get(name) != "number":
                raise _wrong(f'"{{{name}}}" in the schema must be an input of the type number')
        if self.output.labels_from and kinds.get(self.output.labels_from) != "labels":
            raise _wrong("labels_from names an input of the type labels")
        if self.long is not None and kinds.get(self.long.input) != "text":
            raise _wrong("long.input names an input of the type text")
        if self.long is not None and self.long.strategy == "join" and self.output.kind != "text":
            raise _wrong("only texts can be joined")
        if self.long is not None and (self.long.strategy == "mean") != (self.output.kind == "label"):
            raise _wrong("of parts that get labels the mean is taken, and of no others")
        return self

    @property
    def templates(self) -> tuple[str, ...]:
        """All texts in which inputs stand."""
        prompt = self.prompt
        return prompt.system, prompt.user, prompt.chunk, prompt.base, prompt.base_chunk

    @property
    def first(self) -> Input:
        """The input that may come from a file."""
        return self.inputs[0]

    def describe(self) -> dict[str, Any]:
        """For a form: what there is to give, and what comes out."""
        kept = self.model_dump(mode="json", include={"name", "title", "about", "group"})
        inputs = [{**each.model_dump(mode="json"), "required": each.default is None} for each in self.inputs]
        output = self.output.model_dump(
            mode="json", include={"kind", "json_schema", "lettered", "labels", "labels_from"}
        )
        decoding = self.decoding.model_dump(mode="json") | {"max_tokens": self.output.max_tokens}
        return {**kept, "inputs": inputs, "output": output, "decoding": decoding}


def _lists_in(schema: Any) -> Iterator[str]:
    """The properties that are lists, wherever they stand."""
    for name, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if isinstance(value, dict) and value.get("type") == "array" and isinstance(name, str):
            yield name
        if isinstance(value, dict | list | tuple):
            yield from _lists_in(value)


def number_inputs(schema: Any) -> Iterator[str]:
    """The inputs whose numbers a schema wants."""
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list | tuple) else ():
        found = FIELD.fullmatch(value) if isinstance(value, str) else None
        yield from [found[1]] if found else number_inputs(value)


def fill_numbers(schema: Any, numbers: dict[str, Any]) -> Any:
    """The schema with those numbers in it."""
    if isinstance(schema, dict):
        return {name: fill_numbers(value, numbers) for name, value in schema.items()}
    if isinstance(schema, list | tuple):
        return [fill_numbers(value, numbers) for value in schema]
    found = FIELD.fullmatch(schema) if isinstance(schema, str) else None
    return numbers[found[1]] if found else schema


def _wrong(rule: str) -> PydanticCustomError:
    return PydanticCustomError("value_error", rule)
