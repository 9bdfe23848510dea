"""Declaration of an application, with its inputs, prompts and output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator
from pydantic_core import PydanticCustomError

from groundup.apps.lettered_options import ANSWER, written_schema
from groundup.core.config import Config, setting
from groundup.core.types import MetricName

_TYPE_NAMES = {int: "a number", tuple: "a list", str: "text"}
FIELD = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
BaselineName = Literal["copy", "lead", "random", "nearest", "example"]
RESERVED = ("list", "run", "evaluate")  # subcommands of `groundup apps`, which applications cannot have as a name
# Command-line options of all applications. An input cannot have such a name.
_RESERVED_OPTIONS = (
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
    """An input of an application."""

    name: str = setting(
        help="name of the input, used as {name} in prompts and as --name on the command line",
        pattern=r"^[a-z][a-z0-9_]*$",
    )
    about: str = setting(help="short description")
    type: Literal["text", "line", "choice", "number", "labels"] = setting(
        "line", help="type of the value; a text may be long, but a line may not"
    )
    default: str | int | tuple[str, ...] | None = setting(
        None, help="default value; an input without a default is required"
    )
    choices: tuple[str, ...] = setting((), help="allowed values, if the type is choice")
    min: int = setting(0, help="minimum number of characters or labels, or minimum value of a number", ge=0)
    max: int | None = setting(None, help="maximum number of characters or labels, or maximum value of a number", ge=1)
    example: str | int | tuple[str, ...] = setting("", help="example value that an empty form shows")
    adapter_specific: bool = setting(
        False, help="an adapter that was trained with one value of this input is used only for that value"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Input:
        if (self.type == "choice") != bool(self.choices):
            raise _wrong(f"{self.name}: choices are for the type choice, which requires them")
        if self.type == "choice" and self.default is not None and self.default not in self.choices:
            raise _wrong(f"{self.name}: the default must be one of the choices")
        kind = {"number": int, "labels": tuple}.get(self.type, str)
        if self.default is not None and not isinstance(self.default, kind):
            raise _wrong(f"{self.name}: the default must be {_TYPE_NAMES[kind]}")
        if self.name in _RESERVED_OPTIONS:
            raise _wrong(f"{self.name} is an option of every application: rename the input")
        return self


class Shot(Config):
    """A few-shot example for the prompt."""

    inputs: dict[str, Any] = setting(help="inputs of the example, as name = value")
    output: str = setting(help="correct output")


class Prompt(Config):
    """Prompt templates of an application. A line of a template is left out if all inputs named in it are empty."""

    user: str = setting(help="user message for chat models")
    system: str = setting("", help="system message for chat models")
    chunk: str = setting("", help="user message that processes one chunk of a long input; default: the value of user")
    base: str = setting(help="prompt for base models; the model continues it with the output")
    base_chunk: str = setting(
        "", help="base-model prompt that processes one chunk of a long input; default: base with the examples"
    )
    shots: tuple[Shot, ...] = setting((), help="few-shot examples for base models")
    shots_in_chat: bool = setting(False, help="also give the few-shot examples to chat models, as earlier turns")
    stop: tuple[str, ...] = setting(("\n\n",), help="stop sequences for base models")


class OutputSettings(Config):
    """Settings for the output of an application."""

    kind: Literal["text", "json", "label"] = setting(
        "text", help="type of the output; JSON output always matches json_schema"
    )
    json_schema: dict[str, Any] = setting(
        {}, help='JSON schema of the output; "{count}" is replaced by the value of the input count'
    )
    distinct: tuple[str, ...] = setting(
        (),
        help="names of lists whose items must differ, and of texts that must differ between the items of a list; "
        "if they repeat, the JSON is generated again",
    )
    lettered: tuple[str, ...] = setting((), help="names of lists whose items are shown with the letters A, B, C, ...")
    options: str = setting(
        "",
        help="name of a list of options, whose correct one has the letter `answer`; a model writes the answer, the "
        "question, and wrong options under `wrong`",
    )
    labels: tuple[str, ...] = setting((), help="labels to choose from, for kind = label")
    labels_from: str = setting("", help="name of the input that contains the labels, for kind = label")
    max_tokens: int = setting(300, help="maximum number of tokens to generate", ge=1)

    @property
    def written_schema(self) -> dict[str, Any]:
        """JSON schema of what a model writes, which differs from `json_schema` if there are `options`."""
        written: dict[str, Any] = written_schema(self.json_schema, self.options) if self.options else self.json_schema
        return written

    @model_validator(mode="after")
    def _fits_together(self) -> OutputSettings:
        if (self.kind == "json") != bool(self.json_schema):
            raise _wrong("json_schema is for kind = json, which requires it")
        for name in self.lettered:
            if ("array", name) not in _properties(self.json_schema):
                raise _wrong(f"lettered: {name!r} is not a list in json_schema")
        if self.options and not {("array", self.options), (None, ANSWER)} <= set(_properties(self.json_schema)):
            raise _wrong(
                f"options: json_schema needs the list {self.options!r}, and {ANSWER!r} with an enum of letters"
            )
        for name in self.distinct:
            if not {("array", name), ("string", name)} & set(_properties(self.json_schema)):
                raise _wrong(f"distinct: {name!r} is not a list or a text in json_schema")
        if (self.kind == "label") != (bool(self.labels) != bool(self.labels_from)):
            raise _wrong("kind = label requires either labels or labels_from, and other kinds have neither")
        return self


class Long(Config):
    """Strategy for an input that does not fit into the context of the model."""

    input: str = setting(help="name of the input that may be long")
    strategy: Literal["reduce", "join", "end", "mean"] = setting(
        help="reduce: summarize chunks, then the summaries; join: process chunks and join the outputs; "
        "end: use only the end of the input; mean: average the label probabilities of the chunks"
    )


class SamplingSettings(Config):
    """Default sampling settings of an application."""

    temperature: float = setting(0.7, help="sampling temperature; 0 means greedy decoding", ge=0, le=2)
    top_p: float = setting(0.95, help="cumulative probability for nucleus sampling", gt=0, le=1)
    repetition_penalty: float = setting(
        1.0, help="repetition penalty; values above 1 make repetition less likely", gt=0, le=10
    )
    no_repeat_ngram_size: int = setting(
        0, help="number of tokens of n-grams that cannot occur twice; 0: no limit", ge=0
    )
    copy_from: str = setting(
        "",
        help="name of an input: a text output is a span of it, and the options or distinct lists of JSON have spans",
    )
    copy_or: tuple[str, ...] = setting((), help="text outputs that are allowed instead of a span, such as unknown")
    facts_from: str = setting(
        "", help="name of an input: if an output has a number or name that it lacks, the output is generated again"
    )


class OutputChecks(Config):
    """Checks of outputs that have no single correct answer. An output counts if it passes all of them."""

    words: tuple[int, int] | None = setting(None, help="minimum and maximum number of words")
    min_lines: int = setting(1, help="minimum number of lines that are not empty", ge=1)
    topic: str = setting("", help="name of the input of which half of the content words must occur in the output")
    max_repeated: float = setting(0.05, help="maximum share of repeated 4-grams", ge=0, le=1)
    answers_from: str = setting(
        "",
        help="name of the input in which the correct option of each question must occur; the output is then a list of "
        "questions about this input, with four different options of one type",
    )


class TestSet(Config):
    """A test set, which contains inputs and reference outputs."""

    __test__ = False  # prevents pytest from collecting this class

    file: str = setting(help="JSON Lines file with inputs and reference outputs, in the directory of this file")
    metric: MetricName | Literal["ranking", "checks"] = setting(
        help="metric of `groundup compare`; or ranking: the share of inputs whose reference is more likely than the "
        "references of three other inputs; or checks: the share of outputs that pass the checks"
    )
    baseline: BaselineName | None = setting(
        None,
        help="copy: the input; lead: the first two sentences; random: a random label; nearest: the label, sentence or "
        "reference that is most similar to the input by TF-IDF; example: the nearest example of the prompt; "
        "default: chosen from the metric",
    )
    checks: OutputChecks = setting(OutputChecks(), help="checks of outputs, for metric = checks")
    required: float = setting(
        0.0, help="minimum score of a useful model, in percent, in addition to the baseline", ge=0
    )

    @field_validator("file")
    @classmethod
    def _next_to_app(cls, value: str) -> str:
        if Path(value).name != value:
            raise _wrong("the test set must be next to the application's file: give a file name without a directory")
        return value


class App(Config):
    """An application that a TOML file declares."""

    name: str = setting(help="name of the application, as in `groundup apps NAME`", pattern=_NAME)
    title: str = setting(help="title")
    about: str = setting(help="short description")
    group: Literal["create", "understand", "teach"] = setting(help="group of the application in lists")
    inputs: tuple[Input, ...] = setting(
        help="inputs of the application; the first input may be read from a file", min_length=1
    )
    prompt: Prompt = setting(help="prompts")
    output: OutputSettings = setting(OutputSettings(), help="output")
    long: Long | None = setting(None, help="strategy for a long input; default: a long input is an error")
    decoding: SamplingSettings = setting(SamplingSettings(), help="sampling")
    test: TestSet | None = setting(None, help="test set")

    @model_validator(mode="after")
    def _fits_together(self) -> App:
        names = [each.name for each in self.inputs]
        kinds = {each.name: each.type for each in self.inputs}
        if len(set(names)) < len(names):
            raise _wrong("two inputs have the same name")
        if self.name in RESERVED:
            raise _wrong(f"{', '.join(RESERVED)} are commands: rename the application")
        for template in self.templates:
            for name in FIELD.findall(template):
                if name not in names:
                    raise _wrong(f"{{{name}}} in a prompt is not an input; the inputs are {', '.join(names)}")
        for name in number_inputs(self.output.json_schema):
            if kinds.get(name) != "number":
                raise _wrong(f'"{{{name}}}" in the schema must be an input of the type number')
        if self.output.labels_from and kinds.get(self.output.labels_from) != "labels":
            raise _wrong("labels_from must be an input of the type labels")
        named = [("decoding", self.decoding.copy_from), ("decoding", self.decoding.facts_from)]
        if self.test is not None:
            named += [("test.checks", self.test.checks.topic), ("test.checks", self.test.checks.answers_from)]
        for key, name in named:
            if name and name not in names:
                raise _wrong(f"{key}: {name!r} is not an input; the inputs are {', '.join(names)}")
        if self.test is not None and self.test.baseline == "example" and not self.prompt.shots:
            raise _wrong("test.baseline = example requires shots in the prompt")
        if self.long is not None and kinds.get(self.long.input) != "text":
            raise _wrong("long.input must be an input of the type text")
        if self.long is not None and self.long.strategy == "join" and self.output.kind != "text":
            raise _wrong("long.strategy = join requires an output of the kind text")
        if self.long is not None and (self.long.strategy == "mean") != (self.output.kind == "label"):
            raise _wrong("long.strategy = mean is for outputs of the kind label, which require it")
        return self

    @property
    def templates(self) -> tuple[str, ...]:
        """All prompt templates of the application."""
        prompt = self.prompt
        return prompt.system, prompt.user, prompt.chunk, prompt.base, prompt.base_chunk

    @property
    def first(self) -> Input:
        """First input of the application, which may be read from a file."""
        return self.inputs[0]

    def describe(self) -> dict[str, Any]:
        """Return inputs, output and sampling settings as JSON, from which a user interface can build a form."""
        kept = self.model_dump(mode="json", include={"name", "title", "about", "group"})
        inputs = [{**each.model_dump(mode="json"), "required": each.default is None} for each in self.inputs]
        output = self.output.model_dump(
            mode="json", include={"kind", "json_schema", "lettered", "labels", "labels_from"}
        )
        sampling = {"temperature", "top_p", "repetition_penalty"}
        decoding = self.decoding.model_dump(mode="json", include=sampling) | {"max_tokens": self.output.max_tokens}
        return {**kept, "inputs": inputs, "output": output, "decoding": decoding}


def _properties(schema: Any) -> Iterator[tuple[Any, str]]:
    """Yield the type and name of all properties in a JSON schema, including nested ones."""
    for name, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if isinstance(value, dict) and isinstance(name, str):
            yield value.get("type"), name
        if isinstance(value, dict | list | tuple):
            yield from _properties(value)


def number_inputs(schema: Any) -> Iterator[str]:
    """Yield the names of the inputs that a JSON schema refers to.

    Args:
        schema: JSON schema that contains "{name}" in place of numbers.
    """
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list | tuple) else ():
        found = FIELD.fullmatch(value) if isinstance(value, str) else None
        yield from [found[1]] if found else number_inputs(value)


def fill_numbers(schema: Any, numbers: dict[str, Any]) -> Any:
    """Replace each "{name}" in a JSON schema by the number that the user gave for this input.

    Args:
        schema: JSON schema that contains "{name}" in place of numbers.
        numbers: Maps input names to numbers.
    """
    if isinstance(schema, dict):
        return {name: fill_numbers(value, numbers) for name, value in schema.items()}
    if isinstance(schema, list | tuple):
        return [fill_numbers(value, numbers) for value in schema]
    found = FIELD.fullmatch(schema) if isinstance(schema, str) else None
    return numbers[found[1]] if found else schema


def without_number_inputs(schema: Any) -> Any:
    """Return a JSON schema without the keywords whose value is "{name}", which differ between inputs.

    Args:
        schema: JSON schema that contains "{name}" in place of numbers.
    """
    if isinstance(schema, dict):
        kept = {name: value for name, value in schema.items() if not _is_number_input(value)}
        return {name: without_number_inputs(value) for name, value in kept.items()}
    return [without_number_inputs(value) for value in schema] if isinstance(schema, list | tuple) else schema


def _is_number_input(value: Any) -> bool:
    return isinstance(value, str) and FIELD.fullmatch(value) is not None


def _wrong(rule: str) -> PydanticCustomError:
    return PydanticCustomError("value_error", rule)
