"""Tools in request bodies: descriptions of functions, calls of earlier turns, and the choice between tools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from groundup.core.types import ToolCall
from groundup.serve.openai.body import Lenient

_MAX_DEPTH = 64  # maximum nesting depth of arguments, because chat templates process them recursively

Json = dict[str, Any]
Mode = Literal["none", "auto", "required"]


def _arguments(text: str) -> str:
    """Check that the arguments of a call are a JSON object. Some servers write "" instead of an empty object."""
    if not text.strip():
        return "{}"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise PydanticCustomError("value_error", "must be a JSON object as text") from None
    if not isinstance(value, dict):
        raise PydanticCustomError("value_error", "must be a JSON object as text")
    if _depth(value) > _MAX_DEPTH:
        raise PydanticCustomError("value_error", f"must have at most {_MAX_DEPTH} levels")
    return text


def _depth(value: Any) -> int:
    """Return the nesting depth of a JSON value, without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _check_is_function(tool: Any) -> Any:
    if isinstance(tool, dict) and tool.get("type", "function") != "function":
        raise PydanticCustomError("unsupported", 'only tools with the type "function" are supported')
    return tool


FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
OnlyFunctions = BeforeValidator(_check_is_function)
Arguments = Annotated[str, AfterValidator(_arguments)]


class FunctionDefinition(Lenient):
    """A function that the model may call. The arguments of a call match the JSON schema `parameters`."""

    name: FunctionName
    description: str = ""
    parameters: Json = Field(default_factory=dict)
    strict: bool = False

    @property
    def described(self) -> Json:
        """Description of the function in the format that chat templates expect."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


class FunctionTool(Lenient):
    """A tool of a chat request. Only functions are supported."""

    type: Literal["function"]
    function: FunctionDefinition


class CalledFunction(Lenient):
    """Name and arguments of a function that the model called in an earlier turn."""

    name: FunctionName
    arguments: Arguments


class MessageToolCall(Lenient):
    """A tool call in a message of the assistant."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def call(self) -> ToolCall:
        """The call as a part of a message."""
        return ToolCall(self.id, self.function.name, self.function.arguments)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The choice between text and tools.

    Attributes:
        mode: Whether the model must not call tools, may call them, or must call them.
        names: Names of the functions that the model may call, or None for all functions.
        is_single: Whether the model must call exactly one function once.
    """

    mode: Mode
    names: frozenset[str] | None = None
    is_single: bool = False

    @property
    def as_item(self) -> Json | Mode:
        """The choice in the format of a response."""
        if self.names is None:
            return self.mode
        tools: list[Json] = [{"type": "function", "name": name} for name in sorted(self.names)]
        return tools[0] if self.is_single else {"type": "allowed_tools", "mode": self.mode, "tools": tools}


def parse_choice(value: Any) -> ToolChoice:
    """Convert the value of the parameter `tool_choice` of a chat request or of a response request.

    Args:
        value: Value of the parameter as JSON.
    """
    match value:
        case "none" | "auto" | "required":
            return ToolChoice(cast(Mode, value))
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return ToolChoice("required", frozenset([name]), is_single=True)
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}} | {
            "type": "allowed_tools",
            "mode": mode,
            "tools": list(tools),
        } if mode in ("auto", "required"):
            chosen = [parse_choice(tool) for tool in tools]
            if chosen and all(each.is_single for each in chosen):
                return ToolChoice(mode, frozenset(name for each in chosen for name in each.names or ()))
    raise PydanticCustomError("value_error", 'must be "none", "auto", "required", or the name of a function')
