"""How an application asks a model: by its chat template, or with examples in a text to go on from; and what fits."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.apps.declaration import App, Shot, fill_numbers
from groundup.apps.inputs import Given, render_template
from groundup.core.errors import ConfigError
from groundup.core.types import Message
from groundup.inference import GenerationRequest, Grammar, Sampling
from groundup.tokenizer import ChatTemplate, Tokenizer

_LEAST_ROOM = 32  # tokens of a text, for an application to be worth asking
_MOST_ROOM = 2_000  # small models lose the thread of longer parts, and what they say of them is too short
_OUTGROWN = 0.6  # of the tokens of an answer that says all of a text again: it may need more than the text
_WARMER, _WARMEST = 0.15, 1.5  # of the temperature, each time that it is asked again
_SPARE = 8  # tokens that a text may need more inside of a prompt than alone
_NOTHING = "N/A"  # a text that says nothing
_SHUFFLES, _SHUFFLED_WORDS = 3, 12


Pair = tuple[tuple[int, ...], tuple[int, ...]]  # the ids of a prompt, and of what comes after it


@dataclass(frozen=True, slots=True, eq=False)
class TextModel:
    """What there is to know of a model in order to ask it.

    Attributes:
        template: None where the model has none that can be used.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    context_length: int


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may want otherwise than it is declared; None: as it is."""

    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(slots=True, eq=False)
class Prompter:
    """One application, one model and one set of inputs.

    Attributes:
        given: the inputs, checked.
        shots: how many of the examples are shown; less than there are where the context is short.
    """

    app: App
    text_model: TextModel
    given: Given
    options: Options = field(default_factory=Options)
    shots: int = 0
    schema: dict[str, Any] | None = None
    grammar: Grammar | None = None
    max_tokens: int = 0

    def __post_init__(self) -> None:
        app, context = self.app, self.text_model.context_length
        if app.output.kind == "json":
            self.schema = fill_numbers(app.output.json_schema, self.given)
            self.grammar = Grammar.of_schema(self.schema, self.text_model.tokenizer)
        wanted = self.options.max_tokens or app.output.max_tokens
        least = self.grammar.min_tokens if self.grammar else 1
        # In a short context the answer gets half, so that there is something that it is about.
        self.max_tokens = max(least, min(wanted, context // 2)) if app.output.kind != "label" else 0
        self.shots = len(app.prompt.shots) if self.text_model.template is None or app.prompt.shots_in_chat else 0
        while self.shots and self.room() < _LEAST_ROOM:
            self.shots -= 1

    @property
    def text(self) -> str:
        """The input that may be long; of an application without one, nothing."""
        return str(self.given[self.app.long.input]) if self.app.long else ""

    def room(self, *, part: bool = False) -> int:
        """Tokens that the long input may have, beside all else."""
        empty = self.given | ({self.app.long.input: ""} if self.app.long else {})
        answer = self.max_tokens or 16  # labels are short
        room = self.text_model.context_length - len(self._prompt(empty, part=part)) - answer - _SPARE
        if self._says_all:
            return min(room, int(_OUTGROWN * self.max_tokens))
        return min(room, _MOST_ROOM) if part else room

    @property
    def _says_all(self) -> bool:
        return self.app.long is not None and self.app.long.strategy == "join"

    def require_room(self) -> None:
        """Raises ConfigError where the context is too short for this application."""
        if self._says_all and _OUTGROWN * self.max_tokens < _LEAST_ROOM:
            raise ConfigError(
                f"{self.app.name}: max_tokens = {self.max_tokens}",
                rule=f"each part of the text is written anew, which takes {math.ceil(_LEAST_ROOM / _OUTGROWN)} or more",
                fix="Allow more, or leave it out.",
            )
        if (room := self.room()) < _LEAST_ROOM:
            context = self.text_model.context_length
            raise ConfigError(
                f"{self.app.name}: a context of {context:,} tokens",
                rule=f"its prompt and answer need {context - room + _LEAST_ROOM:,} with these inputs",
                fix="Give shorter inputs, ask for a shorter answer (max_tokens), or take a model with more context.",
            )

    def fits(self, given: Mapping[str, Any], *, part: bool = False) -> bool:
        """Whether a prompt with an answer of full length fits."""
        if self._says_all and self.tokens(self.text) > self.room():
            return False
        return len(self._prompt(given, part=part)) + (self.max_tokens or 16) <= self.text_model.context_length

    def request(self, given: Given, *, part: bool = False, again: int = 0) -> GenerationRequest:
        """For the answer to these inputs, or about a part; asked again, with more chance each time."""
        app, template, options = self.app, self.text_model.template, self.options
        decoding = app.decoding
        temperature = decoding.temperature if options.temperature is None else options.temperature
        seed = options.seed
        if again:
            temperature = max(temperature, min(temperature + again * _WARMER, _WARMEST))
            seed = (seed or 0) + again
        grammar = None if part else self.grammar
        return GenerationRequest(
            prompt=self._prompt(given, part=part),
            is_reply=template is not None,
            sampling=Sampling(
                temperature=temperature, top_p=decoding.top_p, repetition_penalty=decoding.repetition_penalty
            ),
            max_tokens=self._most_about(given) if part else self.max_tokens,
            stop=() if template is not None or grammar is not None else app.prompt.stop,
            stop_ids=None if template is None else template.stop_ids,
            seed=seed,
            grammar=grammar,
        )

    def tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.text_model.tokenizer.encode(text))

    def _most_about(self, given: Given) -> int:
        """Tokens that may be said about a part: at most half of its own, so that a long text becomes a short one."""
        assert self.app.long is not None
        return max(1, min(self.max_tokens, self.tokens(given[self.app.long.input]) // 2))

    def followed(self, given: Given, output: str) -> Pair:
        """The ids of the prompt, and those of an output that comes after it."""
        answers = self.text_model.template is not None
        # Where the prompt ends with a line, what follows begins one; else it follows after a space, as words do.
        space = "" if answers or self.app.prompt.base.endswith("\n") or output[:1].isspace() else " "
        ids = self.text_model.tokenizer.encode(space + output, continues=not answers)
        return self._prompt(given, part=False), tuple(ids)

    def labelled(self, given: Given, labels: Sequence[str]) -> list[list[Pair]]:
        """The prompt with the ids of each label after it, and then the same for texts that say nothing.

        Those are words of the examples in no order (domain-context calibration, Fei et al. 2023).
        """
        first = self.app.first.name
        words = [word for shot in self.app.prompt.shots for word in str(shot.inputs.get(first, "")).split()]
        blank = [_NOTHING]
        if words:
            orders = [random.Random(seed).sample(words, len(words)) for seed in range(_SHUFFLES)]
            blank = [" ".join(order[:_SHUFFLED_WORDS]) for order in orders]
        asked = [given, *(given | {first: text} for text in blank)]
        return [[self.followed(each, label) for label in labels] for each in asked]

    def _prompt(self, given: Mapping[str, Any], *, part: bool) -> tuple[int, ...]:
        prompt, template = self.app.prompt, self.text_model.template
        own = part and bool(prompt.base_chunk if template is None else prompt.chunk)
        shots = [] if own else prompt.shots[: self.shots]
        if template is None:
            parts = [f"{self._base(shot.inputs)}{self._output(shot)}{self._end}" for shot in shots]
            parts.append(render_template(prompt.base_chunk if own else prompt.base, given).rstrip(" "))
            return tuple(self.text_model.tokenizer.encode_prompt("".join(parts)))
        messages = []
        for shot in shots:
            messages.append(Message("user", render_template(prompt.user, self._shown(shot.inputs))))
            messages.append(Message("assistant", self._output(shot)))
        messages.append(Message("user", render_template(prompt.chunk if own else prompt.user, given)))
        system = render_template(prompt.system, given)
        if system and template.supports_system:
            messages.insert(0, Message("system", system))
        elif system:
            messages[0] = Message("user", f"{system}\n\n{messages[0].content}")
        return tuple(template.encode(messages, add_generation_prompt=True))

    def _base(self, inputs: Mapping[str, Any]) -> str:
        text = render_template(self.app.prompt.base, self._shown(inputs))
        return text if text.endswith("\n") else text.rstrip(" ") + " "

    def _output(self, shot: Shot) -> str:
        json_wanted = self.app.output.kind == "json"
        return json.dumps(json.loads(shot.output), ensure_ascii=False) if json_wanted else shot.output

    @property
    def _end(self) -> str:
        return self.app.prompt.stop[0] if self.app.prompt.stop else "\n\n"

    def _shown(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """An example's inputs, with the defaults of those that it leaves out."""
        return {each.name: "" if each.default is None else each.default for each in self.app.inputs} | dict(inputs)
