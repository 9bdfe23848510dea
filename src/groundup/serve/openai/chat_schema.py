"""Body of a request to `POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from groundup.core.types import Message
from groundup.serve.openai.body import Lenient, only
from groundup.serve.openai.conversation import MAX_TOOLS, ConversationBody, joined_parts, with_function_names
from groundup.serve.openai.tool_schema import FunctionDefinition, FunctionTool, MessageToolCall, OnlyFunctions


class ChatMessage(Lenient):
    """A message of a chat. Empty fields that only responses have are accepted, because clients send responses back."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(joined_parts("text"))] = None
    tool_calls: list[MessageToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None
    refusal: only() = None  # type: ignore[valid-type]
    annotations: only([]) = None  # type: ignore[valid-type]
    audio: only() = None  # type: ignore[valid-type]
    function_call: only() = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _fields_fit_role(self) -> ChatMessage:
        if self.content is None and not self.tool_calls:
            kind = "string_type" if "content" in self.model_fields_set else "missing"
            raise PydanticCustomError(kind, "content must be text", {"field": "content"})
        if self.tool_calls and self.role != "assistant":
            rule = 'only messages with the role "assistant" have tool calls'
            raise PydanticCustomError("value_error", rule, {"field": "tool_calls"})
        if self.tool_call_id is None and self.role == "tool":
            raise PydanticCustomError("missing", "a result needs the ID of its call", {"field": "tool_call_id"})
        return self


class ChatBody(ConversationBody):
    """Body of a request to `POST /v1/chat/completions`."""

    conversation_param: ClassVar[str] = "messages"
    limit_param: ClassVar[str] = "max_completion_tokens"

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Annotated[FunctionTool, OnlyFunctions]] = Field(default_factory=list, max_length=MAX_TOOLS)
    functions: only([]) = None  # type: ignore[valid-type]
    function_call: only("none", "auto") = None  # type: ignore[valid-type]
    modalities: only(["text"]) = None  # type: ignore[valid-type]
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fit_together(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("value_error", "top_logprobs requires logprobs = true", {"param": "top_logprobs"})
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            rule = "max_tokens is the old name of max_completion_tokens: give only one of them"
            raise PydanticCustomError("value_error", rule, {"param": "max_completion_tokens"})
        return self

    @property
    def conversation(self) -> list[Message]:
        """Messages of the conversation."""
        # Newer models of OpenAI use the role "developer" for system messages.
        return with_function_names(
            Message(
                "system" if message.role == "developer" else message.role,
                message.content or "",
                tuple(call.call for call in message.tool_calls),
                message.tool_call_id or "",
            )
            for message in self.messages
        )

    @property
    def all_functions(self) -> list[FunctionDefinition]:
        """Functions that the request describes."""
        return [tool.function for tool in self.tools]

    @property
    def num_logprobs(self) -> int:
        """Number of most likely tokens whose log-probabilities are returned for each token of the answer."""
        return (self.top_logprobs or 0) if self.logprobs else 0

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of ignored parameters, including parameters of the messages."""
        inside = dict.fromkeys(name for message in self.messages for name in message.ignored)
        return (*super().ignored, *(f"messages.{name}" for name in inside))

    @property
    def template_variables(self) -> dict[str, tuple[str, Any]]:
        """Maps each variable of the chat template to the request parameter that sets the variable, and to its value."""
        found: dict[str, tuple[str, Any]] = {}
        if self.reasoning_effort is not None:
            found["reasoning_effort"] = ("reasoning_effort", self.reasoning_effort)
        return found | {name: (f"chat_template_kwargs.{name}", v) for name, v in self.chat_template_kwargs.items()}

    @property
    def limit(self) -> int | None:
        """Maximum number of tokens to generate, or None if the response may fill the rest of the context."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
