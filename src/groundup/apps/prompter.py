"""Construction of the prompts of an application for chat models and base models, within the model's context length."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.apps.copying import schema_with_spans
from groundup.apps.declaration import App, Shot, fill_numbers
from groundup.apps.inputs import Given, render_template
from groundup.apps.lettered_options import WRONG
from groundup.core.errors import ConfigError
from groundup.core.types import Message
from groundup.inference import GenerationRequest, Grammar, Sampling
from groundup.tokenizer import ChatTemplate, Tokenizer

_MIN_INPUT_TOKENS = 32
_MAX_CHUNK_TOKENS = 2_000  # small models summarize longer chunks poorly
# Maximum ratio of input tokens to output tokens if the output rewrites the input. The output may be longer than the
# input.
_MAX_REWRITE_RATIO = 0.6
_TEMPERATURE_STEP, _MAX_TEMPERATURE = 0.15, 1.5  # the step is added for each new attempt
_TOKEN_MARGIN = 8  # inside a prompt, a text may have more tokens than alone
_NEUTRAL_TEXT = "N/A"  # input without content, for label calibration
_SHUFFLES, _SHUFFLED_WORDS = 3, 12


Pair = tuple[tuple[int, ...], tuple[int, ...]]  # token IDs of a prompt and token IDs of its continuation


@dataclass(frozen=True, slots=True, eq=False)
class TextModel:
    """Properties of a model that influence the prompt.

    Attributes:
        tokenizer: Tokenizer of the model.
        template: Chat template of the model, or None if it is a base model.
        context_length: Context length of the model in tokens.
        trained_for: Name of the application that the model was fine-tuned for, whose prompt then has no examples.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    context_length: int
    trained_for: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """Generation settings that override the settings of the application. None means no override.

    Attributes:
        temperature: Sampling temperature.
        max_tokens: Maximum number of tokens to generate.
        seed: Random seed.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(slots=True, eq=False)
class Prompter:
    """Builds prompts and generation requests for one application, one model and one set of inputs.

    Attributes:
        app: Application that defines the prompt templates.
        text_model: Properties of the model.
        given: Validated inputs.
        options: Generation settings that override the settings of the application.
        shots: Number of few-shot examples in the prompt. It is reduced if the context is short.
        schema: JSON schema of the output, or None if the output is not JSON.
        written: JSON schema of what the model writes, which differs for multiple-choice questions.
        grammar: Grammar that enforces the schema, or None if the output is not JSON.
        max_tokens: Maximum number of tokens to generate.
    """

    app: App
    text_model: TextModel
    given: Given
    options: Options = field(default_factory=Options)
    shots: int = 0
    schema: dict[str, Any] | None = None
    written: dict[str, Any] | None = None
    grammar: Grammar | None = None
    max_tokens: int = 0

    def __post_init__(self) -> None:
        app, context = self.app, self.text_model.context_length
        if app.output.kind == "json":
            self.schema = fill_numbers(app.output.json_schema, self.given)
            self.written = fill_numbers(app.output.written_schema, self.given)
            self.grammar = Grammar.of_schema(self.written, self.text_model.tokenizer)
        wanted = self.options.max_tokens or app.output.max_tokens
        minimum = self.grammar.min_tokens if self.grammar else 1
        # In a short context, the output gets at most half of the context, which leaves space for the input.
        self.max_tokens = max(minimum, min(wanted, context // 2)) if app.output.kind != "label" else 0
        model = self.text_model
        shown = (model.template is None or app.prompt.shots_in_chat) and model.trained_for != app.name
        self.shots = len(app.prompt.shots) if shown else 0
        while self.shots and self.max_input_tokens() < _MIN_INPUT_TOKENS:
            self.shots -= 1

    @property
    def text(self) -> str:
        """Value of the input that may be long, or "" if the application declares no such input."""
        return str(self.given[self.app.long.input]) if self.app.long else ""

    def max_input_tokens(self, *, chunk: bool = False) -> int:
        """Return the maximum number of tokens of the long input.

        Args:
            chunk: Whether the prompt processes a chunk of the input instead of the whole input.
        """
        empty = self.given | ({self.app.long.input: ""} if self.app.long else {})
        answer = self.max_tokens or 16  # labels are short
        available = self.text_model.context_length - len(self._prompt(empty, chunk=chunk)) - answer - _TOKEN_MARGIN
        if self._repeats_input:
            return min(available, int(_MAX_REWRITE_RATIO * self.max_tokens))
        return min(available, _MAX_CHUNK_TOKENS) if chunk else available

    @property
    def _repeats_input(self) -> bool:
        return self.app.long is not None and self.app.long.strategy == "join"

    def require_space(self) -> None:
        """Raise an error if the context is too short to run this application.

        Raises:
            ConfigError: The context is too short for the prompt and the output.
        """
        if self._repeats_input and _MAX_REWRITE_RATIO * self.max_tokens < _MIN_INPUT_TOKENS:
            required = math.ceil(_MIN_INPUT_TOKENS / _MAX_REWRITE_RATIO)
            raise ConfigError(
                f"{self.app.name}: max_tokens = {self.max_tokens}",
                rule=f"each chunk is rewritten, which takes at least {required} tokens",
                fix="Increase max_tokens, or leave it out.",
            )
        if (available := self.max_input_tokens()) < _MIN_INPUT_TOKENS:
            context = self.text_model.context_length
            raise ConfigError(
                f"{self.app.name}: the model has a context of {context:,} tokens",
                rule=f"prompt and output need {context - available + _MIN_INPUT_TOKENS:,} with these inputs",
                fix="Give shorter inputs, reduce max_tokens, or use a model with a longer context.",
            )

    def fits(self, given: Mapping[str, Any], *, chunk: bool = False) -> bool:
        """Return whether the prompt and an output of maximum length fit into the context.

        Args:
            given: Validated inputs.
            chunk: Whether the prompt processes a chunk of the input instead of the whole input.
        """
        if self._repeats_input and self.num_tokens(self.text) > self.max_input_tokens():
            return False
        return len(self._prompt(given, chunk=chunk)) + (self.max_tokens or 16) <= self.text_model.context_length

    def request(self, given: Given, *, chunk: bool = False, attempt: int = 0) -> GenerationRequest:
        """Return the generation request for a set of inputs.

        Args:
            given: Validated inputs.
            chunk: Whether the prompt processes a chunk of the input instead of the whole input.
            attempt: Number of earlier attempts. Each earlier attempt raises the temperature.
        """
        app, template, options = self.app, self.text_model.template, self.options
        decoding = app.decoding
        temperature = decoding.temperature if options.temperature is None else options.temperature
        seed = options.seed
        if attempt:
            temperature = max(temperature, min(temperature + attempt * _TEMPERATURE_STEP, _MAX_TEMPERATURE))
            seed = (seed or 0) + attempt
        grammar = None if chunk else self._grammar_of(given)
        return GenerationRequest(
            prompt=self._prompt(given, chunk=chunk),
            is_reply=template is not None,
            sampling=Sampling(
                temperature=temperature,
                top_p=decoding.top_p,
                repetition_penalty=decoding.repetition_penalty,
                no_repeat_ngram_size=decoding.no_repeat_ngram_size,
            ),
            max_tokens=self._max_chunk_output(given) if chunk else self.max_tokens,
            stop=() if template is not None or grammar is not None else app.prompt.stop,
            stop_ids=None if template is None else template.stop_ids,
            seed=seed,
            grammar=grammar,
            unrepeated=() if chunk or not decoding.no_repeat_ngram_size else tuple(self._example_texts()),
        )

    def _grammar_of(self, given: Given) -> Grammar | None:
        """Return the grammar of the output, which may depend on the text to copy from."""
        source = self.app.decoding.copy_from
        if not source:
            return self.grammar
        text, tokenizer = str(given[source]), self.text_model.tokenizer
        grammar = self.grammar
        try:
            if self.written is None:
                grammar = Grammar.of_spans(text, tokenizer, self.app.decoding.copy_or)
            elif (schema := schema_with_spans(self.written, self._copied_lists, text)) is not None:
                grammar = Grammar.of_schema(schema, tokenizer)
        except ConfigError:  # The text is too large for a grammar. The output is then not constrained to its spans.
            return self.grammar
        return grammar if grammar is None or grammar.min_tokens <= self.max_tokens else self.grammar

    @property
    def _copied_lists(self) -> tuple[str, ...]:
        output = self.app.output
        return (WRONG,) if output.options else output.distinct

    def num_tokens(self, text: str) -> int:
        """Return the number of tokens in a text."""
        return len(self.text_model.tokenizer.encode(text))

    def _max_chunk_output(self, given: Given) -> int:
        """Return the maximum number of output tokens for a chunk: half of its tokens, so that summaries are shorter."""
        assert self.app.long is not None
        return max(1, min(self.max_tokens, self.num_tokens(given[self.app.long.input]) // 2))

    def prompt_and_output(self, given: Given, output: str) -> Pair:
        """Return the token IDs of the prompt and the token IDs of an output that follows the prompt."""
        answers = self.text_model.template is not None
        # If the prompt of a base model does not end with a newline, the output starts with a space.
        space = "" if answers or self.app.prompt.base.endswith("\n") or output[:1].isspace() else " "
        ids = self.text_model.tokenizer.encode(space + output, continues=not answers)
        return self._prompt(given, chunk=False), tuple(ids)

    def label_pairs(self, given: Given, labels: Sequence[str]) -> list[list[Pair]]:
        """Return pairs of a prompt and a label: first for the given input, then for each of several neutral texts.

        The neutral texts consist of shuffled words from the few-shot examples (domain-context calibration, Fei et al.
        2023).

        Args:
            given: Validated inputs.
            labels: Names of the labels.

        Returns:
            One list per text. Each list contains a pair of prompt and label for each label.
        """
        first = self.app.first.name
        words = [word for shot in self.app.prompt.shots for word in str(shot.inputs.get(first, "")).split()]
        neutral = [_NEUTRAL_TEXT]
        if words:
            orders = [random.Random(seed).sample(words, len(words)) for seed in range(_SHUFFLES)]
            neutral = [" ".join(order[:_SHUFFLED_WORDS]) for order in orders]
        texts = [given, *(given | {first: text} for text in neutral)]
        return [[self.prompt_and_output(each, label) for label in labels] for each in texts]

    def _prompt(self, given: Mapping[str, Any], *, chunk: bool) -> tuple[int, ...]:
        prompt, template = self.app.prompt, self.text_model.template
        own = chunk and bool(prompt.base_chunk if template is None else prompt.chunk)
        shots = [] if own else prompt.shots[: self.shots]
        if template is None:
            parts = [f"{self._base(shot.inputs)}{self._output(shot)}{self._end}" for shot in shots]
            parts.append(render_template(prompt.base_chunk if own else prompt.base, given).rstrip(" "))
            return tuple(self.text_model.tokenizer.encode_prompt("".join(parts)))
        messages = []
        for shot in shots:
            messages.append(Message("user", render_template(prompt.user, self._with_defaults(shot.inputs))))
            messages.append(Message("assistant", self._output(shot)))
        messages.append(Message("user", render_template(prompt.chunk if own else prompt.user, given)))
        system = render_template(prompt.system, given)
        if system and template.supports_system:
            messages.insert(0, Message("system", system))
        elif system:
            messages[0] = Message("user", f"{system}\n\n{messages[0].content}")
        return tuple(template.encode(messages, add_generation_prompt=True))

    def _base(self, inputs: Mapping[str, Any]) -> str:
        text = render_template(self.app.prompt.base, self._with_defaults(inputs))
        return text if text.endswith("\n") else text.rstrip(" ") + " "

    def _output(self, shot: Shot) -> str:
        json_wanted = self.app.output.kind == "json"
        return json.dumps(json.loads(shot.output), ensure_ascii=False) if json_wanted else shot.output

    def _example_texts(self) -> Iterator[tuple[int, ...]]:
        """Yield the token IDs of each text in the outputs of the examples, which small models copy."""
        for shot in self.app.prompt.shots[: self.shots]:
            value = json.loads(shot.output) if self.app.output.kind == "json" else shot.output
            yield from (tuple(self.text_model.tokenizer.encode(text)) for text in _texts(value))

    @property
    def _end(self) -> str:
        return self.app.prompt.stop[0] if self.app.prompt.stop else "\n\n"

    def _with_defaults(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs of a few-shot example. Omitted inputs get their default values."""
        return {each.name: "" if each.default is None else each.default for each in self.app.inputs} | dict(inputs)


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings of a JSON value, without the names of properties."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
