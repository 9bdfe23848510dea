"""The common part of request bodies for chats and for responses: a conversation with tools."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from groundup.core.types import Message
from groundup.serve.openai.schema import GenerationBody
from groundup.serve.openai.tool_schema import FunctionDefinition, ToolChoice, parse_choice

MAX_TOOLS = 128  # maximum number of tools in a request, as in OpenAI's API


def joined_parts(*kinds: str) -> Callable[[Any], Any]:
    """Return a function that joins the text parts of a message whose content is a list of parts.

    Args:
        kinds: Supported types of parts. A part has the keys "type" and "text".
    """

    def join(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        texts = []
        for part in value:
            match part:
                case {"type": kind, "text": str(text)} if kind in kinds:
                    texts.append(text)
                case {"type": str(kind)} if kind not in kinds:
                    raise PydanticCustomError("unsupported", "only text parts are supported")
                case _:
                    rule = f'a part must be {{"type": "{kinds[0]}", "text": "..."}}'
                    raise PydanticCustomError("value_error", rule)
        return "".join(texts)

    return join


def with_function_names(messages: Iterable[Message]) -> list[Message]:
    """Add the name of the called function to each message with the result of a tool call.

    Args:
        messages: Messages of a conversation.
    """
    named: list[Message] = []
    names: dict[str, str] = {}
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        named.append(replace(message, name=names.get(message.tool_call_id, "")) if message.role == "tool" else message)
    return named


class ConversationBody(GenerationBody):
    """Body of a request for the next message of a conversation.

    Attributes:
        conversation_param: Name of the parameter that contains the conversation.
    """

    conversation_param: ClassVar[str]

    tool_choice: Annotated[ToolChoice, PlainValidator(parse_choice)] | None = None
    parallel_tool_calls: bool = True

    @model_validator(mode="after")
    def _answer_parameters_fit_together(self) -> ConversationBody:
        if self.stop and self.prompt_functions:
            rule = "stop cannot be combined with tools, because it could cut a call"
            raise PydanticCustomError("value_error", rule, {"param": "stop"})
        if self.callable_functions and self.constraint is not None and self.constraint.schema is None:
            rule = "only a JSON schema can be combined with tools"
            raise PydanticCustomError("value_error", rule, {"param": self.constraint.param})
        names = [function.name for function in self.all_functions]
        if len(names) > len(set(names)):
            raise PydanticCustomError("value_error", "two functions have the same name", {"param": "tools"})
        choice = self.tool_choice
        if choice is not None and (unknown := (choice.names or frozenset()).difference(names)):
            rule = f"tools has no function with the name {min(unknown)!r:.80}"
            raise PydanticCustomError("value_error", rule, {"param": "tool_choice"})
        if self.requires_call and not names:
            raise PydanticCustomError("value_error", "tool_choice requires tools", {"param": "tool_choice"})
        return self

    @property
    @abstractmethod
    def conversation(self) -> list[Message]:
        """Messages of the conversation."""

    @property
    @abstractmethod
    def all_functions(self) -> list[FunctionDefinition]:
        """Functions that the request describes."""

    @property
    @abstractmethod
    def template_variables(self) -> dict[str, tuple[str, Any]]:
        """Maps each variable of the chat template to the request parameter that sets the variable, and to its value."""

    @property
    @abstractmethod
    def num_logprobs(self) -> int:
        """Number of most likely tokens whose log-probabilities are returned for each token of the answer."""

    @property
    def prompt_functions(self) -> list[FunctionDefinition]:
        """Functions in the prompt. If `tool_choice` is "none", the prompt contains no functions."""
        return [] if self.tool_choice is not None and self.tool_choice.mode == "none" else self.all_functions

    @property
    def callable_functions(self) -> list[FunctionDefinition]:
        """Functions in the prompt that the answer may call."""
        names = None if self.tool_choice is None else self.tool_choice.names
        return [function for function in self.prompt_functions if names is None or function.name in names]

    @property
    def is_constrained(self) -> bool:
        """Whether a grammar constrains the output. It takes time to compile."""
        return bool(self.callable_functions) or super().is_constrained

    @property
    def requires_call(self) -> bool:
        """Whether the answer must be a tool call."""
        return self.tool_choice is not None and self.tool_choice.mode == "required"

    @property
    def allows_several_calls(self) -> bool:
        """Whether the answer may contain several tool calls."""
        return self.parallel_tool_calls and not (self.tool_choice is not None and self.tool_choice.is_single)
