"""Body of a request to `POST /v1/responses`.

The server stores no responses. A request contains the whole conversation, as with `store: false` in OpenAI's API.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from groundup.core.types import Message, ToolCall
from groundup.inference import Grammar
from groundup.serve.openai.body import TAG, Body, Lenient, only
from groundup.serve.openai.constraints import Constraint
from groundup.serve.openai.conversation import MAX_TOOLS, ConversationBody, joined_parts, with_function_names
from groundup.serve.openai.tool_schema import Arguments, FunctionDefinition, FunctionName, OnlyFunctions

_NOT_STORED = "this server stores no responses, so send the whole conversation in input"

Json = dict[str, Any]


class MessageItem(Lenient):
    """A message of the conversation. Messages of the assistant have the fields of earlier responses."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(joined_parts("input_text", "output_text", "text"))]
    id: str | None = None
    status: str | None = None


class FunctionCallItem(Lenient):
    """A tool call of an earlier response."""

    type: Literal["function_call"]
    call_id: str
    name: FunctionName
    arguments: Arguments
    id: str | None = None
    status: str | None = None


class FunctionCallOutputItem(Lenient):
    """The result of a tool call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Annotated[str, BeforeValidator(joined_parts("input_text", "output_text", "text"))]
    id: str | None = None
    status: str | None = None


class ReasoningItem(Lenient):
    """The reasoning of an earlier response of another server. It is ignored."""

    type: Literal["reasoning"]


def _kind(item: Any) -> str:
    """Return the tag of the class of an item."""
    return TAG + str(item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", ""))


Item = Annotated[
    Annotated[MessageItem, Tag(f"{TAG}message")]
    | Annotated[FunctionCallItem, Tag(f"{TAG}function_call")]
    | Annotated[FunctionCallOutputItem, Tag(f"{TAG}function_call_output")]
    | Annotated[ReasoningItem, Tag(f"{TAG}reasoning")],
    Discriminator(
        _kind,
        custom_error_type="unsupported",
        custom_error_message="the supported types of items are message, function_call and function_call_output",
    ),
]


def _items(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class FunctionToolItem(FunctionDefinition):
    """A tool of a response request. Only functions are supported."""

    type: Literal["function"]


class AnswerFormat(Body):
    """Format of the text of the answer: text, any JSON object, or JSON that matches a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: Json | None = Field(None, alias="schema")
    strict: bool = True  # accepted for compatibility: the schema is always enforced

    @model_validator(mode="after")
    def _schema_matches_type(self) -> AnswerFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            rule = 'type "json_schema" requires a schema, and other types do not have it'
            raise PydanticCustomError("value_error", rule, {"param": "text.format.schema"})
        return self


class TextOptions(Lenient):
    """Options of the text of the answer."""

    format: AnswerFormat | None = None


class Reasoning(Lenient):
    """Options of reasoning. The effort is passed to the chat template if it reads the variable `reasoning_effort`."""

    effort: str | None = None


class ResponseBody(ConversationBody):
    """Body of a request to `POST /v1/responses`."""

    conversation_param: ClassVar[str] = "input"
    limit_param: ClassVar[str] = "max_output_tokens"

    input: Annotated[list[Item], BeforeValidator(_items), Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    text: TextOptions = Field(default_factory=TextOptions)
    tools: list[Annotated[FunctionToolItem, OnlyFunctions]] = Field(default_factory=list, max_length=MAX_TOOLS)
    reasoning: Reasoning | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    n: only(1) = 1  # type: ignore[valid-type]
    max_tokens: only() = None  # type: ignore[valid-type]
    background: only(False) = None  # type: ignore[valid-type]
    conversation_id: only(reason=_NOT_STORED) = Field(None, alias="conversation")  # type: ignore[valid-type]
    previous_response_id: only(reason=_NOT_STORED) = None  # type: ignore[valid-type]
    prompt: only() = None  # type: ignore[valid-type]

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of ignored parameters, including parameters in nested objects."""
        nested = {"text": self.text.ignored, "reasoning": self.reasoning.ignored if self.reasoning else ()}
        inside = [f"{name}.{each}" for name, names in nested.items() for each in names]
        kinds = dict.fromkeys(item.type for item in self.input if isinstance(item, ReasoningItem))
        return (*super().ignored, *inside, *(f"input.{kind}" for kind in kinds))

    @property
    def conversation(self) -> list[Message]:
        """Messages of the conversation. Successive tool calls belong to one message."""
        messages = [Message("system", self.instructions)] if self.instructions else []
        for item in self.input:
            match item:
                case MessageItem(role="system" | "developer") if len(messages) == 1 and messages[0].role == "system":
                    # Many chat templates accept only one system message.
                    messages[0] = Message("system", f"{messages[0].content}\n\n{item.content}")
                case MessageItem():
                    messages.append(Message("system" if item.role == "developer" else item.role, item.content))
                case FunctionCallItem():
                    call = ToolCall(item.call_id, item.name, item.arguments)
                    last = messages.pop() if messages and messages[-1].role == "assistant" else Message("assistant", "")
                    messages.append(Message("assistant", last.content, (*last.tool_calls, call)))
                case FunctionCallOutputItem():
                    messages.append(Message("tool", item.output, tool_call_id=item.call_id))
        return with_function_names(messages)

    @property
    def all_functions(self) -> list[FunctionDefinition]:
        """Functions that the request describes."""
        return list(self.tools)

    @property
    def template_variables(self) -> dict[str, tuple[str, Any]]:
        """Maps each variable of the chat template to the request parameter that sets the variable, and to its value."""
        effort = None if self.reasoning is None else self.reasoning.effort
        return {} if effort is None else {"reasoning_effort": ("reasoning.effort", effort)}

    @property
    def num_logprobs(self) -> int:
        """Number of most likely tokens whose log-probabilities are returned, which this endpoint does not support."""
        return 0

    @property
    def limit(self) -> int | None:
        """Maximum number of tokens to generate, or None if the response may fill the rest of the context."""
        return self.max_output_tokens

    def _constraints(self) -> list[Constraint]:
        given = self.text.format
        if given is None or given.type == "text":
            return super()._constraints()
        schema = {"type": "object"} if given.json_schema is None else given.json_schema
        return [Constraint("text.format", schema, Grammar.of_schema), *super()._constraints()]
