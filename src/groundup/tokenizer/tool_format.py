"""The text format in which a model writes tool calls, recognized from its chat template.

A chat template renders the tool calls of earlier turns in the format that the model was trained on. Therefore the
format is found by rendering a conversation with known calls, and not by the name of the model.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from groundup.core.errors import GroundupError
from groundup.core.types import Message, ToolCall

Tools = Sequence[dict[str, Any]]
# Renders a conversation, with the descriptions of tools and with or without a generation prompt.
RenderChat = Callable[[Sequence[Message], Tools, bool], str]

_PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    r"""The text format of tool calls.

    A turn with two calls is `opening NAME middle ARGUMENTS separator NAME middle ARGUMENTS closing`, where the
    arguments are a JSON object. For example, in the format of Hermes and Qwen, `opening` is
    `<tool_call>\n{"name": "`, `middle` is `", "arguments": ` and `closing` is `}\n</tool_call>`.

    Attributes:
        opening: Text before the name of the first function.
        middle: Text between the name of a function and its arguments.
        closing: Text after the arguments of the last call.
        separator: Text between the arguments of a call and the name of the next function, or None if the model makes
            only one call per turn.
        tag: Special token that the model may write before the calls, or "" if the model has no such token.
        is_rendered: Whether the template renders tool calls. Otherwise they must be written into the content of a
            message.
    """

    opening: str
    middle: str
    closing: str
    separator: str | None = None
    tag: str = ""
    is_rendered: bool = True

    @property
    def marker(self) -> str:
        """The start of `opening` by which calls are recognized, such as `<tool_call>`."""
        return self.opening.partition("{")[0].rstrip("[ \n") or self.opening

    @property
    def is_bare(self) -> bool:
        """Whether a call is JSON without a marker, so that it is recognized only at the start of a turn."""
        return self.marker == self.opening and self.opening.startswith("{")

    def text(self, calls: Sequence[ToolCall]) -> str:
        """Return the text of a turn with these calls."""
        separator = self.separator or f"{self.closing}\n{self.opening}"
        return self.opening + separator.join(f"{c.name}{self.middle}{c.arguments}" for c in calls) + self.closing


# Formats that a template only describes in its instructions, because it does not render tool calls.
_DESCRIBED = (
    ToolFormat(
        '<tool_call>\n{"name": "',
        '", "arguments": ',
        "}\n</tool_call>",
        '}\n</tool_call>\n<tool_call>\n{"name": "',
        is_rendered=False,
    ),  # Hermes and SmolLM3
    ToolFormat(
        '<|tool_call|>[{"name": "', '", "arguments": ', "}]", '}, {"name": "', is_rendered=False
    ),  # Granite 3.0 to 3.3
)


def find_tool_format(render: RenderChat, *, ends: Collection[str], names: Collection[str]) -> ToolFormat | None:
    """Return the format in which a model writes tool calls, or None if its chat template does not define one.

    Args:
        render: Function that renders a conversation. It raises GroundupError if the template does not accept it.
        ends: Names of the tokens that end a turn.
        names: Names of the control tokens that the template uses.
    """
    calls = [_call() for _ in range(3)]
    try:
        probe = _Probe(render, calls, ends, names)
        found = probe.rendered_format() if probe.has_rendered_call else probe.described_format()
        return found if found is not None and probe.shows_result_in(found) else None
    except GroundupError:
        return None


class _Probe:
    """Test conversations that are rendered with a chat template.

    Args:
        render: Function that renders a conversation.
        calls: Three tool calls with unique names, arguments and IDs.
        ends: Names of the tokens that end a turn.
        names: Names of the control tokens that the template uses.

    Raises:
        GroundupError: The template does not accept a conversation of a question and an answer with tools.
    """

    def __init__(
        self, render: RenderChat, calls: Sequence[ToolCall], ends: Collection[str], names: Collection[str]
    ) -> None:
        self._render, self._calls, self._ends, self._names = render, calls, ends, names
        self._question = Message("user", "question")
        self._tools = [_tool(call.name) for call in calls]
        self._prompt = render([self._question], self._tools, True)
        self._answered = self._answer(Message("assistant", "answer"))
        self._single = self._turn(calls[:1])

    @property
    def has_rendered_call(self) -> bool:
        """Whether a turn with a tool call contains the value of its argument."""
        return json.loads(self._calls[0].arguments)["value"] in self._single

    def rendered_format(self) -> ToolFormat | None:
        """Return the format of calls in a rendered turn, or None if the turn does not have the form of `ToolFormat`."""
        pairs = enumerate(zip(self._answered, self._single, strict=False))
        start = next((n for n, (one, other) in pairs if one != other), len(self._answered))
        for name in self._names:  # the texts may differ inside a control token, such as <|START_TEXT|>
            begin = self._single.rfind(name, 0, start + len(name) - 1)
            start = begin if 0 <= begin < start < begin + len(name) else start
        parts = self._parts(self._single[start:], self._calls[:1])
        if parts is None or not parts[0]:  # a call would start with the name of the function, like other text
            return None
        opening, middle, closing = parts
        repeated = self._parts(self._turn(self._calls)[start:], self._calls)
        separator = repeated[2] if repeated is not None else None
        if repeated != [opening, middle, separator, middle, separator, middle, closing]:
            separator = None  # for example, the template accepts one call per turn or numbers the calls
        found = ToolFormat(opening, middle, closing, separator)
        return replace(found, tag=_PYTHON_TAG) if found.is_bare and _PYTHON_TAG in self._names else found

    def described_format(self) -> ToolFormat | None:
        """Return a known format whose marker the template mentions only if there are tools."""
        try:
            without = self._render([self._question], [], True)
        except GroundupError:
            without = ""
        return next((each for each in _DESCRIBED if each.marker in self._prompt and each.marker not in without), None)

    def shows_result_in(self, found: ToolFormat) -> bool:
        """Return whether the template renders the descriptions of tools and the result of a tool call."""
        call, result = self._calls[0], _unique()
        turn = Message("assistant", "", (call,)) if found.is_rendered else Message("assistant", found.text([call]))
        answer = Message("tool", result, tool_call_id=call.id, name=call.name)
        shown = self._render([self._question, turn, answer], self._tools, True)
        return result in shown and all(call.name in self._prompt for call in self._calls)

    def _answer(self, message: Message) -> str:
        return self._render([self._question, message], self._tools, False)

    def _turn(self, calls: Sequence[ToolCall]) -> str:
        """Return the rendered text of a turn with these calls, or "" if the template does not accept the turn."""
        try:
            return self._answer(Message("assistant", "", tuple(calls)))
        except GroundupError:
            return ""

    def _parts(self, text: str, calls: Sequence[ToolCall]) -> list[str] | None:
        """Return the texts around the names and arguments of calls, up to the end of the turn and without IDs."""
        parts, position = [], 0
        for known in (known for call in calls for known in (call.name, call.arguments)):
            found = text.find(known, position)
            if found < 0:
                return None
            parts.append(text[position:found])
            position = found + len(known)
        ends = [text.find(end, position) for end in self._ends if end in text[position:]]
        if not ends:
            return None
        parts.append(text[position : min(ends)])
        for call in calls:
            parts = [re.sub(rf',\s*"\w+":\s*"{call.id}"', "", part) for part in parts]
            if any(call.id in part for part in parts):
                return None
        return [parts[0].lstrip(), *parts[1:-1], parts[-1].rstrip()]


def _tool(name: str) -> dict[str, Any]:
    value = {"type": "object", "properties": {"value": {"type": "string", "description": "Value."}}}
    function = {"name": name, "description": "Function.", "parameters": value | {"required": ["value"]}}
    return {"type": "function", "function": function}


def _call() -> ToolCall:
    # Templates of Mistral accept only IDs of nine letters and digits.
    return ToolCall(secrets.token_hex(5)[:9], f"function{_unique()}", json.dumps({"value": _unique()}))


def _unique() -> str:
    return f"word{secrets.token_hex(8)}word"
