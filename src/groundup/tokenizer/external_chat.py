"""Encoding of conversations with the chat template of an external model.

The ids are the same as in transformers, except that message content cannot inject special tokens.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import ConfigError, GroundupError
from groundup.core.types import Message, Role, ToolCall, well_formed
from groundup.tokenizer.jinja import JinjaTemplate, TemplateRefusalError
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.tool_format import ToolFormat, Tools, find_tool_format

# Unicode noncharacters, which are reserved for the internal use of programs. A noncharacter that does not occur in the
# conversation is inserted as a separator into each special token name in message content. The separator breaks the
# name, so all special tokens in the rendered text are from the template. The separator is removed before encoding.
_BREAKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_NEUTRAL = "x"


class ExternalChat:
    """The Jinja chat template of an external model. See `ChatTemplate` for its methods and attributes."""

    def __init__(self, tokenizer: Tokenizer, jinja: str) -> None:
        """Compile the template and test it with a question and an answer.

        Args:
            tokenizer: The tokenizer of the model.
            jinja: The template in Jinja syntax.

        Raises:
            FormatError: The template is invalid or exceeds a limit.
            ConfigError: The template does not support a conversation of a question and an answer.
        """
        self.jinja = jinja
        self._tokenizer = tokenizer
        self._template = JinjaTemplate(jinja, variables(tokenizer))
        self.variable_names = self._template.variable_names
        names = [name for name in tokenizer.control_tokens if len(name) > 1]
        self._marker = _any_of(names)
        self._special = [name for name in names if tokenizer.control_tokens[name] in tokenizer.special_ids]
        # The content of assistant messages may contain control tokens that are not special tokens, such as "<think>".
        self._in_text = {"assistant": _any_of(self._special)}
        self._beginnings = {name[:i] for name in names for i in range(1, len(name))}
        self._endings = {name[i:] for name in names for i in range(1, len(name))}
        self._longest = max(map(len, names), default=0)
        self._cached_plan = lru_cache(maxsize=1024)(self._plan)  # Many conversations have the same special tokens.
        self._unique_words: list[str] = []
        question, answer = Message("user", _unique()), Message("assistant", _unique())
        opening = self.render([question], add_generation_prompt=True)
        complete = self.render([question, answer])
        if question.content not in opening:
            raise ConfigError(
                "the model's chat template",
                rule="the rendered text does not contain the message",
                fix="Copy the model's tokenizer_config.json (or chat_template.jinja) again from its source.",
            )
        before, _, after = complete.partition(answer.content)
        found = self._marker.search(after)
        self._end = found[0] if found else None
        self._in_text["assistant"] = _any_of([*self._special, *([self._end] if self._end else [])])
        self._matches_prompt = before == opening
        ends = (tokenizer.control_tokens[self._end],) if self._end else ()
        self.stop_ids = tuple(dict.fromkeys((*ends, *tokenizer.stop_ids)))
        self.supports_system = self._test_system(question)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Tools = (),
    ) -> list[int]:
        """See `ChatTemplate.encode`."""
        text, mark = self._render_safely(
            messages, add_generation_prompt=add_generation_prompt, variables=variables, tools=tools
        )
        return self._tokenizer.encode_with_control_tokens(self._split(text, mark))[0]

    def encode_labeled(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatTemplate.encode_labeled`."""
        text, mark = self._render_safely(messages)
        spans = self._answer_spans(text, mark, messages)
        ids, offsets = self._tokenizer.encode_with_control_tokens(self._split(text, mark))
        plain = text.replace(mark, "")
        trained = [False] * len(ids)
        for span in spans:
            for n in _tokens_in(span, offsets, plain):
                trained[n] = True
        return ids, trained

    def token_roles(self, messages: Sequence[Message]) -> list[Role | None]:
        """See `ChatTemplate.token_roles`."""
        text, mark = self._render_safely(messages)
        ids, offsets = self._tokenizer.encode_with_control_tokens(self._split(text, mark))
        plain = text.replace(mark, "")
        roles: list[Role | None] = [None] * len(ids)
        for message, span in zip(
            messages, self._content_spans(text, mark, messages, range(len(messages))), strict=True
        ):
            for n in _tokens_in(_without(mark, text, *span), offsets, plain) if span is not None else ():
                roles[n] = message.role
        return roles

    def _render_safely(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Tools = (),
    ) -> tuple[str, str]:
        """Return the rendered text, and the separator character that breaks special token names in message content."""
        if not self.supports_system and any(message.role == "system" for message in messages):
            raise ConfigError(
                "a system message",
                rule="the model's chat template does not support system messages",
                fix="Omit the system message, or add its text to the first question.",
            )
        mark = self._break_for(messages)
        safe = [self._safe_message(message, mark) for message in messages]
        given = {name: self._safe_value(value, mark) for name, value in (variables or {}).items()}
        described = self._safe_value(list(tools), mark)
        text = self.render(safe, add_generation_prompt=add_generation_prompt, variables=given, tools=described)
        neutral = tuple(replace(m, content=_NEUTRAL if m.content.strip() else m.content) for m in safe)
        planned = self._plan(neutral, add_generation_prompt, given, described) if given or tools else None
        if self._structure(text) != (planned or self._cached_plan(neutral, add_generation_prompt)):
            raise ConfigError(
                "a message that changes the special tokens of the chat template",
                rule="content must not change the structure of a conversation",
                fix="Remove text from the message that looks like part of the template.",
            )
        return text, mark

    def _plan(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        variables: Mapping[str, Any] | None = None,
        tools: Tools = (),
    ) -> list[str]:
        text = self.render(messages, add_generation_prompt=add_generation_prompt, variables=variables, tools=tools)
        return self._structure(text)

    def _safe_message(self, message: Message, mark: str) -> Message:
        """Return the message in which special token names are broken."""
        calls = tuple(
            ToolCall(
                self._safe_value(call.id, mark),
                self._safe_value(call.name, mark),
                json.dumps(self._safe_value(json.loads(call.arguments), mark), ensure_ascii=False),
            )
            for call in message.tool_calls
        )
        answered, name = (self._safe_value(each, mark) for each in (message.tool_call_id, message.name))
        return Message(message.role, self._broken(message, mark), calls, answered, name)

    def _safe_value(self, value: Any, mark: str) -> Any:
        """Return the value of a template variable in which special token names are broken, including nested values."""
        if isinstance(value, str):
            value = well_formed(value.replace(mark, ""))
            while found := self._marker.search(value):
                value = value[: found.start() + 1] + mark + value[found.start() + 1 :]
            return value
        if isinstance(value, dict):
            return {self._safe_value(name, mark): self._safe_value(each, mark) for name, each in value.items()}
        return [self._safe_value(each, mark) for each in value] if isinstance(value, list) else value

    def _structure(self, text: str) -> list[str]:
        ids, special = self._tokenizer.control_tokens, self._tokenizer.special_ids
        return [name for name in self._marker.findall(text) if ids[name] in special]

    def _break_for(self, messages: Sequence[Message]) -> str:
        everything = [self.jinja, *(message.content for message in messages)]
        for mark in _BREAKS:
            if not any(mark in text for text in everything):
                return mark
        raise ConfigError(
            "a conversation with all noncharacters U+FDD0 to U+FDEF",
            rule="one of these characters must be unused, because groundup needs it as a separator",
            fix="Remove the noncharacters, which have no meaning in Unicode.",
        )

    def _broken(self, message: Message, mark: str) -> str:
        content = well_formed(message.content)
        pattern = self._in_text.get(message.role, self._marker)
        while found := pattern.search(content):
            content = content[: found.start() + 1] + mark + content[found.start() + 1 :]
        # The content must also not form a special token name together with adjacent text of the template.
        inner = content.strip()
        if inner and self._completes(inner):
            start = content.index(inner)
            content = content[:start] + mark + inner + mark + content[start + len(inner) :]
        return content

    def _completes(self, text: str) -> bool:
        """Return whether the text and adjacent text of the template could together form a special token name."""
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
        tools: Tools = (),
    ) -> str:
        """See `ChatTemplate.render`."""
        return self._template.render(
            list(map(_as_json, messages)),
            add_generation_prompt=add_generation_prompt,
            variables=variables,
            tools=tools,
        )

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """See `ChatTemplate.tool_format`."""
        ids = self._tokenizer.control_tokens
        return find_tool_format(
            lambda messages, tools, opens: self.render(messages, tools=tools, add_generation_prompt=opens),
            ends=[name for name, token in ids.items() if token in self.stop_ids],
            names=[name for name in ids if name in self.jinja],
        )

    def _answer_spans(self, text: str, mark: str, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Return the spans of the answers, including their end-of-turn tokens, in the rendered text without separators.

        The span of an answer starts after its generation prompt. If the template renders a past answer with a prefix
        that differs from the generation prompt, the span starts with the content of the answer.
        """
        if self._end is None:
            raise self._ambiguous("it adds no special token after an answer, so the model could not learn to stop")
        numbers = [n for n, message in enumerate(messages) if message.role == "assistant"]
        contents = self._content_spans(text, mark, messages, numbers)
        spans, position = [], 0
        for n, content in zip(numbers, contents, strict=True):
            first = content[0] if content is not None else None
            if first is None or not self._matches_prompt:
                length = self._prompt_length(text, mark, messages[:n])
                if length is None and first is None:
                    raise self._ambiguous("it changes the text of an answer")
                first = min(length for length in (length, first) if length is not None)
            found = self._marker.search(text, first)
            while found and found[0] != self._end:
                found = self._marker.search(text, found.end())
            if first < position or found is None:
                raise self._ambiguous(f"the end-of-turn token {self._end} does not follow each answer")
            position = found.end()
            spans.append(_without(mark, text, first, position))
        return spans

    def _content_spans(
        self, text: str, mark: str, messages: Sequence[Message], numbers: Sequence[int]
    ) -> Sequence[tuple[int, int] | None]:
        """Return the span of the content of each of these messages in the rendered text.

        To find the text that the template adds, the conversation is rendered with a unique word in place of each
        content. If the template text and the contents do not combine to the rendered text, all spans are None.

        Args:
            text: The rendered text, with separators.
            mark: The separator character.
            messages: All messages of the conversation.
            numbers: Indices of the messages whose content is to be found.
        """
        unknown = [None] * len(numbers)
        replaced = [replace(m, content=self._broken(m, mark)) for m in messages]
        contents = [replaced[n].content for n in numbers]
        self._unique_words += [_unique() for _ in numbers[len(self._unique_words) :]]
        unique = self._unique_words[: len(numbers)]
        for n, word in zip(numbers, unique, strict=True):
            replaced[n] = replace(messages[n], content=word)
        around = re.split("|".join(unique) or r"(?!)", self.render(replaced))
        if len(around) != len(numbers) + 1:
            return unknown
        found, position = [], len(around[0])
        for content, after in zip(contents, around[1:], strict=True):
            rendered = next((c for c in _trimmed(content) if text.startswith(c + after, position)), None)
            if rendered is None:
                return unknown
            found.append((position, position + len(rendered)))
            position += len(rendered) + len(after)
        return found if text.startswith(around[0]) and position == len(text) else unknown

    def _prompt_length(self, text: str, mark: str, messages: Sequence[Message]) -> int | None:
        """Return the length of the prompt for the next answer, or None if the text does not start with this prompt."""
        try:
            prompt = self.render([Message(m.role, self._broken(m, mark)) for m in messages], add_generation_prompt=True)
        except GroundupError:
            return None
        return len(prompt) if text.startswith(prompt) else None

    def _test_system(self, question: Message) -> bool:
        system = Message("system", _unique())
        try:
            return system.content in self.render([system, question])
        except TemplateRefusalError:
            return False

    def _ambiguous(self, reason: str) -> ConfigError:
        return ConfigError(
            f"the model's chat template: {reason}",
            rule="the training loss on answers needs the exact positions of the answers in the rendered text",
            fix="Use examples with simple questions and answers, or fine-tune the base model with groundup's template.",
        )


def _tokens_in(span: tuple[int, int], offsets_N2: NDArray[np.int64], plain: str) -> list[int]:
    """Return the indices of the tokens that belong to a span of the text. The offsets have shape [tokens, 2]."""
    first, last = span
    inside: list[int] = np.flatnonzero((offsets_N2[:, 1] > first) & (offsets_N2[:, 0] < last)).tolist()
    # A token that starts before the span belongs to the span only if its characters before the span are spaces.
    while inside and plain[offsets_N2[inside[0], 0] : first].strip(" "):
        del inside[0]
    return inside


def _without(mark: str, text: str, first: int, last: int) -> tuple[int, int]:
    """Convert a span of the text to the corresponding span of the text from which the separators are removed."""
    return first - text.count(mark, 0, first), last - text.count(mark, 0, last)


def _as_json(message: Message) -> dict[str, Any]:
    """Return a message in the format that chat templates expect, which differs from OpenAI's API in the arguments."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:  # templates test whether a key exists
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.tool_calls
        ]
    optional = {"tool_call_id": message.tool_call_id, "name": message.name}
    return found | {key: value for key, value in optional.items() if value}


def variables(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the special tokens in the config as template variables, keyed by names such as `bos_token`."""
    found: dict[str, Any] = {}
    for key, token in tokenizer.config.items():
        content = token.get("content") if isinstance(token, Mapping) else token
        if key.endswith("_token") and isinstance(content, str):
            found[key] = content
    return found


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of the names. Longer names take precedence."""
    listed = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(f"({'|'.join(listed)})" if listed else r"((?!))")


def _unique() -> str:
    return f"word{secrets.token_hex(8)}word"


def _trimmed(content: str) -> list[str]:
    """Return variants of the content in which white space at its ends is removed in all ways that templates use."""
    return [cut(content) for cut in (str, str.strip, str.rstrip, str.lstrip)] + [
        content.strip("\n"),
        content.rstrip("\n"),
        content.lstrip("\n"),
    ]
