"""Conversations by another model's chat template: the ids that transformers gives, from text that forges nothing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import ConfigError, GroundupError
from groundup.core.types import Message, Role, well_formed
from groundup.tokenizer.jinja import JinjaTemplate, TemplateRefusalError
from groundup.tokenizer.tokenizer import Tokenizer

# Characters that Unicode keeps for a program's own use: one that occurs nowhere is put into names of special tokens
# that stand in messages, so that the rendered text holds only those of the template.
_BREAKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_NEUTRAL = "x"


class ForeignChat:
    """See `ChatTemplate`."""

    def __init__(self, tokenizer: Tokenizer, jinja: str) -> None:
        """
        Raises:
            FormatError: a template that is damaged or does what it must not.
            ConfigError: a template that takes no question with its answer.
        """
        self.jinja = jinja
        self._tokenizer = tokenizer
        self._template = JinjaTemplate(jinja, variables(tokenizer))
        self.takes = self._template.takes
        names = [name for name in tokenizer.markers if len(name) > 1]
        self._marker = _any_of(names)
        self._special = [name for name in names if tokenizer.markers[name] in tokenizer.special_ids]
        # What an assistant writes may hold markers that are not special ("<think>"): they are its own.
        self._in_text = {"assistant": _any_of(self._special)}
        self._beginnings = {name[:i] for name in names for i in range(1, len(name))}
        self._endings = {name[i:] for name in names for i in range(1, len(name))}
        self._longest = max(map(len, names), default=0)
        self._planned = lru_cache(maxsize=1024)(self._plan)  # many conversations have one plan
        self._strange: list[str] = []
        question, answer = Message("user", _unique()), Message("assistant", _unique())
        opening = self.render([question], add_generation_prompt=True)
        whole = self.render([question, answer])
        if question.content not in opening:
            raise ConfigError(
                "the model's chat template writes no question",
                rule="a chat template turns messages into text",
                fix="Copy the model's tokenizer_config.json (or chat_template.jinja) again from where it came.",
            )
        before, _, after = whole.partition(answer.content)
        found = self._marker.search(after)
        self._end = found[0] if found else None
        self._in_text["assistant"] = _any_of([*self._special, *([self._end] if self._end else [])])
        self._opens_exactly = before == opening
        ends = (tokenizer.markers[self._end],) if self._end else ()
        self.stop_ids = tuple(dict.fromkeys((*ends, *tokenizer.stop_ids)))
        self.supports_system = self._tries_system(question)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """See `ChatTemplate.encode`."""
        text, mark = self._safely(messages, add_generation_prompt=add_generation_prompt, variables=variables)
        return self._tokenizer.encode_marked(self._split(text, mark))[0]

    def encode_labelled(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatTemplate.encode_labelled`."""
        text, mark = self._safely(messages)
        spans = self._answers(text, mark, messages)
        ids, places = self._tokenizer.encode_marked(self._split(text, mark))
        plain = text.replace(mark, "")
        trained = [False] * len(ids)
        for span in spans:
            for n in _tokens_in(span, places, plain):
                trained[n] = True
        return ids, trained

    def speakers(self, messages: Sequence[Message]) -> list[Role | None]:
        """See `ChatTemplate.speakers`."""
        text, mark = self._safely(messages)
        ids, places = self._tokenizer.encode_marked(self._split(text, mark))
        plain = text.replace(mark, "")
        speakers: list[Role | None] = [None] * len(ids)
        for message, span in zip(messages, self._words(text, mark, messages, range(len(messages))), strict=True):
            for n in _tokens_in(_without(mark, text, *span), places, plain) if span is not None else ():
                speakers[n] = message.role
        return speakers

    def _safely(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> tuple[str, str]:
        """The conversation as text in which only the template's special tokens are whole, and what breaks others."""
        if not self.supports_system and any(message.role == "system" for message in messages):
            raise ConfigError(
                "a system message",
                rule="the chat template of this model takes none",
                fix="Leave it out, or say it at the beginning of the first question.",
            )
        mark = self._break_for(messages)
        safe = [Message(m.role, self._broken(m, mark)) for m in messages]
        given = {name: self._safe_value(value, mark) for name, value in (variables or {}).items()}
        text = self.render(safe, add_generation_prompt=add_generation_prompt, variables=given)
        neutral = tuple(Message(m.role, _NEUTRAL if m.content.strip() else m.content) for m in messages)
        planned = self._plan(neutral, add_generation_prompt, given) if given else None
        if self._structure(text) != (planned or self._planned(neutral, add_generation_prompt)):
            raise ConfigError(
                "a message whose text changes which special tokens the chat template writes",
                rule="what is said in a conversation must not become a part of its structure",
                fix="Leave out of the message what looks like a part of the template.",
            )
        return text, mark

    def _plan(
        self, messages: Sequence[Message], add_generation_prompt: bool, variables: Mapping[str, Any] | None = None
    ) -> list[str]:
        text = self.render(messages, add_generation_prompt=add_generation_prompt, variables=variables)
        return self._structure(text)

    def _safe_value(self, value: Any, mark: str) -> Any:
        """A variable's value in which no text, however deep, holds a special token. Other text stays comparable."""
        if isinstance(value, str):
            value = well_formed(value.replace(mark, ""))
            while found := self._marker.search(value):
                value = value[: found.start() + 1] + mark + value[found.start() + 1 :]
            return value
        if isinstance(value, dict):
            return {self._safe_value(name, mark): self._safe_value(each, mark) for name, each in value.items()}
        return [self._safe_value(each, mark) for each in value] if isinstance(value, list) else value

    def _structure(self, text: str) -> list[str]:
        ids, special = self._tokenizer.markers, self._tokenizer.special_ids
        return [name for name in self._marker.findall(text) if ids[name] in special]

    def _break_for(self, messages: Sequence[Message]) -> str:
        everything = [self.jinja, *(message.content for message in messages)]
        for mark in _BREAKS:
            if not any(mark in text for text in everything):
                return mark
        raise ConfigError(
            "a conversation with each of the noncharacters U+FDD0 to U+FDEF in it",
            rule="text to be encoded leaves one of them to the program",
            fix="Leave them out: Unicode gives them no meaning.",
        )

    def _broken(self, message: Message, mark: str) -> str:
        content = well_formed(message.content)
        pattern = self._in_text.get(message.role, self._marker)
        while found := pattern.search(content):
            content = content[: found.start() + 1] + mark + content[found.start() + 1 :]
        # Nor may it complete what the template has begun to write.
        inner = content.strip()
        if inner and self._completes(inner):
            start = content.index(inner)
            content = content[:start] + mark + inner + mark + content[start + len(inner) :]
        return content

    def _completes(self, text: str) -> bool:
        """Whether a name could lie partly in the text and partly before or after it, or around it."""
        lengths = range(1, min(self._longest, len(text) + 1))
        return any(text[-n:] in self._beginnings or text[:n] in self._endings for n in lengths) or (
            len(text) < self._longest and any(text in ending for ending in self._endings)
        )

    def _split(self, text: str, mark: str) -> list[str]:
        pieces = self._marker.split(text)
        return [piece.replace(mark, "") for piece in pieces]

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """See `ChatTemplate.render`."""
        said = [{"role": message.role, "content": message.content} for message in messages]
        return self._template.render(said, add_generation_prompt=add_generation_prompt, variables=variables)

    def _answers(self, text: str, mark: str, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Where in the rendered text, the breaks taken out, each answer begins and its end of turn ends.

        An answer begins where the prompt ends that the model is given for it. Where the template writes something else
        before an answer than at the end of a prompt, it begins with its first word.
        """
        if self._end is None:
            raise self._unlabelled("it writes no special token after an answer, by which one could learn to stop")
        numbers = [n for n, message in enumerate(messages) if message.role == "assistant"]
        words = self._words(text, mark, messages, numbers)
        spans, place = [], 0
        for n, said in zip(numbers, words, strict=True):
            first = said[0] if said is not None else None
            if first is None or not self._opens_exactly:
                length = self._prompt_length(text, mark, messages[:n])
                if length is None and first is None:
                    raise self._unlabelled("it changes what an answer says")
                first = min(length for length in (length, first) if length is not None)
            found = self._marker.search(text, first)
            while found and found[0] != self._end:
                found = self._marker.search(text, found.end())
            if first < place or found is None:
                raise self._unlabelled(f"it does not write {self._end} after each answer")
            place = found.end()
            spans.append(_without(mark, text, first, place))
        return spans

    def _words(
        self, text: str, mark: str, messages: Sequence[Message], numbers: Sequence[int]
    ) -> Sequence[tuple[int, int] | None]:
        """Where the words of these messages begin and end; None where it is not certain.

        They are replaced by words that occur nowhere: what then stands around these is the template's. It is
        believed only where this and the messages' own words together are the whole text again.
        """
        unknown = [None] * len(numbers)
        replaced = [Message(m.role, self._broken(m, mark)) for m in messages]
        contents = [replaced[n].content for n in numbers]
        self._strange += [_unique() for _ in numbers[len(self._strange) :]]
        unique = self._strange[: len(numbers)]
        for n, word in zip(numbers, unique, strict=True):
            replaced[n] = Message(messages[n].role, word)
        around = re.split("|".join(unique) or r"(?!)", self.render(replaced))
        if len(around) != len(numbers) + 1:
            return unknown
        found, place = [], len(around[0])
        for content, after in zip(contents, around[1:], strict=True):
            said = next((c for c in _trimmed(content) if text.startswith(c + after, place)), None)
            if said is None:
                return unknown
            found.append((place, place + len(said)))
            place += len(said) + len(after)
        return found if text.startswith(around[0]) and place == len(text) else unknown

    def _prompt_length(self, text: str, mark: str, messages: Sequence[Message]) -> int | None:
        """How much of the text the model is given before it answers; None: its prompt is not what stands there."""
        try:
            prompt = self.render([Message(m.role, self._broken(m, mark)) for m in messages], add_generation_prompt=True)
        except GroundupError:
            return None
        return len(prompt) if text.startswith(prompt) else None

    def _tries_system(self, question: Message) -> bool:
        system = Message("system", _unique())
        try:
            return system.content in self.render([system, question])
        except TemplateRefusalError:
            return False

    def _unlabelled(self, reason: str) -> ConfigError:
        return ConfigError(
            f"the model's chat template: {reason}",
            rule="to train on answers, it must be certain where in the text they stand and end",
            fix="Use examples of plain questions and answers, or tune its base model, which gets groundup's template.",
        )


def _tokens_in(span: tuple[int, int], places_N2: NDArray[np.int64], plain: str) -> list[int]:
    """Which tokens write this part of the text."""
    first, last = span
    inside: list[int] = np.flatnonzero((places_N2[:, 1] > first) & (places_N2[:, 0] < last)).tolist()
    # A token that begins before the words is theirs if only the space before them is in it.
    while inside and plain[places_N2[inside[0], 0] : first].strip(" "):
        del inside[0]
    return inside


def _without(mark: str, text: str, first: int, last: int) -> tuple[int, int]:
    """The same places in the text without the marks."""
    return first - text.count(mark, 0, first), last - text.count(mark, 0, last)


def variables(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a template may name: each special token of the config by its role."""
    found: dict[str, Any] = {}
    for key, token in tokenizer.config.items():
        content = token.get("content") if isinstance(token, Mapping) else token
        if key.endswith("_token") and isinstance(content, str):
            found[key] = content
    return found


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """The longest of the names that stands at a place."""
    listed = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(f"({'|'.join(listed)})" if listed else r"((?!))")


def _unique() -> str:
    return f"word{secrets.token_hex(8)}word"


def _trimmed(content: str) -> list[str]:
    """What templates make of an answer's ends."""
    return [cut(content) for cut in (str, str.strip, str.rstrip, str.lstrip)] + [
        content.strip("\n"),
        content.rstrip("\n"),
        content.lstrip("\n"),
    ]
