"""Request bodies in the format of OpenAI's API.

If a supported parameter has an invalid value, the request is rejected. Parameters without effect (`store`, `user`,
`verbosity`, and parameters that only other servers have) are ignored and listed in a response header. Unsupported
parameters that would change the response (`tools`, `best_of`, `suffix`) are rejected. Their default values (`tools:
[]`, `best_of: 1`) are accepted because some clients send them. The extensions `top_k`, `min_p` and `repetition_penalty`
have the same meaning as in vLLM.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from groundup.core.config import nearest
from groundup.serve.errors import ApiError

MAX_CHOICES = 16  # maximum number of choices in a request, summed over all prompts
_MAX_STOPS = 256
_MAX_BIASES = 1024
_MAX_BIAS = 100.0  # a bias of -100 bans a token, and a bias of 100 forces it
_MAX_ID_DIGITS = 9
_SHOWN_CHARACTERS = 80
# Ignored parameters that have one of these default values are not reported to the client.
_IGNORED_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True, False),
    "metadata": ({},),
    "verbosity": ("medium",),
    "include_obfuscation": (False,),
}

B = TypeVar("B", bound="Body")


def _only(*harmless: Any) -> Any:
    """Return the type of an unsupported parameter. A value is rejected unless it is one of the given values."""

    def check(value: Any) -> Any:
        if value not in harmless:
            raise PydanticCustomError("unsupported", "not supported by this server")
        return value

    return Annotated[Any, AfterValidator(check)]


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _biases(value: Any) -> dict[int, float]:
    """Convert {"token ID": bias} with string keys to {token ID: bias} with integer keys."""
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", 'must be an object of token IDs and numbers, e.g. {"42": -100}')
    if len(value) > _MAX_BIASES:
        raise PydanticCustomError("value_error", f"must have at most {_MAX_BIASES} tokens")
    for name, bias in value.items():
        if not (isinstance(name, str) and name.isascii() and name.isdecimal() and len(name) <= _MAX_ID_DIGITS):
            raise PydanticCustomError("value_error", 'keys must be token IDs, e.g. {"42": -100}')
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise PydanticCustomError("float_type", "values must be numbers")
        if not abs(bias) <= _MAX_BIAS:
            raise PydanticCustomError("value_error", f"values must be from -{_MAX_BIAS:g} to {_MAX_BIAS:g}")
    return {int(name): float(bias) for name, bias in value.items()}


def _joined_parts(value: Any) -> Any:
    """Join the text parts of a message whose content is a list of parts."""
    if value is None:
        raise PydanticCustomError("string_type", "content must be text")
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": str(kind)} if kind != "text":
                raise PydanticCustomError("unsupported", "only text parts are supported")
            case _:
                raise PydanticCustomError("value_error", 'a part must be {"type": "text", "text": "..."}')
    return "".join(texts)


def _prompts(value: Any) -> Any:
    """Return the prompts of a request as a list. The request has one or several prompts, as texts or as token IDs."""

    def is_ids(item: Any) -> bool:
        return isinstance(item, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in item)

    if isinstance(value, str) or (is_ids(value) and value):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, str) or (is_ids(item) and item) for item in value):
        return value
    raise PydanticCustomError("value_error", "must be text, a list of texts, or one or several lists of token IDs")


class Body(BaseModel):
    """Base class of request bodies. Types are strict, unknown keys are rejected, and null means an omitted key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if value is not None or name == "content"}
        return values


class Lenient(Body):
    """Base class of bodies that accept and ignore unknown keys, such as new or server-specific parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of unknown keys whose value is not a known default."""
        extra = (self.model_extra or {}).items()
        return tuple(name for name, value in extra if value not in _IGNORED_DEFAULTS.get(name, ()))


class StreamOptions(Lenient):
    """Options of a streamed response, which the parameter `stream_options` contains."""

    include_usage: bool = False


class GenerationBody(Lenient):
    """Parameters that the endpoints for chat and for completions share."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_stops)] = Field(
        default_factory=list, max_length=_MAX_STOPS
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    stream: bool = False
    stream_options: StreamOptions | None = None
    top_k: int | None = Field(None, ge=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    logit_bias: Annotated[dict[int, float], PlainValidator(_biases)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _stream_options_require_stream(self) -> GenerationBody:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "value_error", "stream_options requires stream = true", {"param": "stream_options"}
            )
        return self

    @property
    def limit(self) -> int | None:
        """Maximum number of tokens to generate, or None if the response may fill the rest of the context."""
        return self.max_tokens

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of ignored parameters, including parameters in nested objects."""
        inside = self.stream_options.ignored if self.stream_options is not None else ()
        return (*super().ignored, *(f"stream_options.{name}" for name in inside))

    @property
    def include_usage(self) -> bool:
        """Whether a streamed response ends with the token counts ("usage")."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatMessage(Lenient):
    """A message of a chat. Empty fields that only responses have are accepted, because clients send responses back."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined_parts)]
    refusal: _only() = None  # type: ignore[valid-type]
    annotations: _only([]) = None  # type: ignore[valid-type]
    audio: _only() = None  # type: ignore[valid-type]
    tool_calls: _only([]) = None  # type: ignore[valid-type]
    function_call: _only() = None  # type: ignore[valid-type]


class NamedSchema(Body):
    """A named JSON schema that the response must match."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool = True  # accepted for compatibility: the schema is always enforced


class ResponseFormat(Body):
    """Format of the response: text, any JSON object, or JSON that matches a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _schema_matches_type(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            rule = 'type "json_schema" requires json_schema = {"name", "schema"}, and other types do not have it'
            raise PydanticCustomError("value_error", rule, {"param": "response_format.json_schema"})
        return self

    @property
    def required_schema(self) -> dict[str, Any] | None:
        """JSON schema that the response must match, or None if the response is text."""
        if self.json_schema is not None:
            return self.json_schema.json_schema
        return {"type": "object"} if self.type == "json_object" else None


class ChatBody(GenerationBody):
    """Body of a request to `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: _only([]) = None  # type: ignore[valid-type]
    tool_choice: _only("none", "auto") = None  # type: ignore[valid-type]
    functions: _only([]) = None  # type: ignore[valid-type]
    function_call: _only("none", "auto") = None  # type: ignore[valid-type]
    modalities: _only(["text"]) = None  # type: ignore[valid-type]
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fit_together(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("value_error", "top_logprobs requires logprobs = true", {"param": "top_logprobs"})
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            rule = "max_tokens is the old name of max_completion_tokens: give only one of them"
            raise PydanticCustomError("value_error", rule, {"param": "max_completion_tokens"})
        if self.required_schema is not None and self.stop:
            rule = "stop cannot be combined with response_format, because it could cut the JSON"
            raise PydanticCustomError("value_error", rule, {"param": "stop"})
        return self

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
    def required_schema(self) -> dict[str, Any] | None:
        """JSON schema that the response must match, or None if the response is text."""
        return None if self.response_format is None else self.response_format.required_schema

    @property
    def limit(self) -> int | None:
        """Maximum number of tokens to generate, or None if the response may fill the rest of the context."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionBody(GenerationBody):
    """Body of a request to `POST /v1/completions`."""

    prompt: Annotated[list[str | list[int]], BeforeValidator(_prompts)]
    max_tokens: int | None = Field(16, ge=1)  # the same default as in OpenAI's API
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    best_of: _only(1) = None  # type: ignore[valid-type]
    suffix: _only("") = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _fit_together(self) -> CompletionBody:
        if self.echo and self.logprobs is not None:
            rule = "echo cannot be combined with logprobs, because logprobs of the prompt are not supported"
            raise PydanticCustomError("unsupported", rule, {"param": "echo"})
        if len(self.prompt) * self.n > MAX_CHOICES:
            rule = f"the number of prompts times n must be at most {MAX_CHOICES}"
            raise PydanticCustomError("value_error", rule, {"param": "n"})
        return self


class AppBody(Body):
    """Body of a request to `POST /v1/apps/{name}`. Omitted inputs and options get the defaults of the application."""

    model: str | None = None
    inputs: dict[str, Any]
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)


def read_body(body: type[B], content: bytes) -> B:
    """Parse and validate the JSON body of a request.

    Args:
        body: Class of the request body.
        content: Bytes of the request body.

    Raises:
        ApiError: The status is 400. The error describes the first invalid parameter.
    """
    try:
        return body.model_validate_json(content)
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        raise _explain(body, problems[0]) from None
    except RecursionError:
        raise _invalid(
            "body", "the JSON is nested too deeply", "Send a flat JSON object.", None, "invalid_json"
        ) from None


def _explain(body: type[Body], problem: ErrorDetails) -> ApiError:
    kind, context = problem["type"], problem.get("ctx", {})
    param = context.get("param") or _written(problem["loc"])[:_SHOWN_CHARACTERS]
    name = str(problem["loc"][-1])[:_SHOWN_CHARACTERS] if problem["loc"] else ""
    if kind == "json_invalid":
        fix = 'Send a JSON object, e.g. {"model": ..., "messages": [...]}.'
        return _invalid("body", f"not valid JSON ({context.get('error', 'syntax error')})", fix, None, "invalid_json")
    if not param:
        return _invalid("body", "must be a JSON object", "Send an object.", None, "invalid_type")
    if kind == "missing":
        return _invalid(f"{param} is missing", "", f"Give {name}.", param, "missing_required_parameter")
    if kind == "extra_forbidden":
        match = nearest(name, body.model_fields)
        fix = f"Did you mean {match}? Otherwise omit it." if match else "Omit it."
        return _invalid(f"unknown parameter {_shown(param)}", "", fix, param, "unknown_parameter")
    rule = problem["msg"].replace("Input should be", "must be")
    if "param" in context:  # a validator that compares several parameters failed
        return _invalid(param, rule, "Change one of them.", param, "invalid_value")
    code = {"unsupported": "unsupported_value"}.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    fix = "Omit it." if kind == "unsupported" else f"Give {param} another value."
    return _invalid(f"{param} = {_shown(problem['input'])}", rule, fix, param, code)


def _invalid(value: str, rule: str, fix: str, param: str | None, code: str) -> ApiError:
    return ApiError(400, value, rule=rule.rstrip("."), fix=fix, param=param, code=code)


def _written(location: tuple[str | int, ...]) -> str:
    """Convert the location of an error to a path such as messages[0].content."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
