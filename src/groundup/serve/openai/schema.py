"""Request bodies in the format of OpenAI's API.

If a supported parameter has an invalid value, the request is rejected. Parameters without effect (`store`,
`verbosity`, and parameters that only other servers have) are ignored and listed in a response header. Unsupported
parameters that would change the response (`functions`, `suffix`) are rejected. Their default values (`functions: []`,
`suffix: ""`) are accepted because some clients send them. The extensions `top_k`, `min_p` and `repetition_penalty`
have the same meaning as in vLLM.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from groundup.serve.openai.body import Body, Lenient, only
from groundup.serve.openai.constraints import ConstrainedBody

MAX_INPUTS = 2048  # maximum number of texts in a request for embeddings, as in OpenAI's API
MAX_CHOICES = 128  # maximum number of choices in a request, summed over all prompts
_MAX_STOPS = 256
_MAX_BIASES = 1024
_MAX_BIAS = 100.0  # a bias of -100 bans a token, and a bias of 100 forces it
_MAX_ID_DIGITS = 9


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


def _prompts(value: Any) -> Any:
    """Return the prompts of a request as a list. The request has one or several prompts, as texts or as token IDs."""

    def is_ids(item: Any) -> bool:
        return isinstance(item, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in item)

    if isinstance(value, str) or (is_ids(value) and value):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, str) or (is_ids(item) and item) for item in value):
        return value
    raise PydanticCustomError("value_error", "must be text, a list of texts, or one or several lists of token IDs")


class StreamOptions(Lenient):
    """Options of a streamed response, which the parameter `stream_options` contains."""

    include_usage: bool = False


class ModelBody(Lenient):
    """Parameters that all requests to a model share."""

    model: str
    user: str | None = None
    safety_identifier: str | None = None

    @property
    def end_user(self) -> str | None:
        """Name of the end user, for fairness between users. OpenAI renamed `user` to `safety_identifier`."""
        return self.safety_identifier or self.user


class GenerationBody(ModelBody, ConstrainedBody):
    """Parameters that all endpoints that generate text share.

    Attributes:
        limit_param: Name of the parameter that limits the length of an output.
    """

    limit_param: ClassVar[str] = "max_tokens"

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

    @model_validator(mode="after")
    def _constraint_excludes_stop(self) -> GenerationBody:
        if self.stop and (constraint := self.constraint) is not None:
            rule = f"stop cannot be combined with {constraint.param}, because it could cut the output"
            raise PydanticCustomError("value_error", rule, {"param": "stop"})
        return self

    @property
    def is_constrained(self) -> bool:
        """Whether a grammar constrains the output. It takes time to compile."""
        return self.constraint is not None

    @property
    def limit(self) -> int | None:
        """Maximum number of tokens to generate, or None if the response may fill the rest of the context."""
        return self.max_tokens

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of ignored parameters, including parameters in nested objects."""
        nested = {"stream_options": self.stream_options, "structured_outputs": self.structured_outputs}
        inside = (f"{name}.{key}" for name, value in nested.items() if value is not None for key in value.ignored)
        return (*super().ignored, *inside)

    @property
    def num_candidates(self) -> int:
        """Number of outputs that are generated for each prompt."""
        return self.n

    @property
    def include_usage(self) -> bool:
        """Whether a streamed response ends with the token counts ("usage")."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(GenerationBody):
    """Body of a request to `POST /v1/completions`."""

    prompt: Annotated[list[str | list[int]], BeforeValidator(_prompts)]
    max_tokens: int | None = Field(16, ge=0)  # the same default as in OpenAI's API
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    suffix: only("") = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _fit_together(self) -> CompletionBody:
        if self.num_candidates < self.n:
            raise PydanticCustomError("value_error", "best_of must be at least n", {"param": "best_of"})
        if self.num_candidates > self.n and self.stream:
            rule = "best_of cannot be combined with stream, because the best output is known only at the end"
            raise PydanticCustomError("value_error", rule, {"param": "best_of"})
        if len(self.prompt) * self.num_candidates > MAX_CHOICES:
            rule = f"the number of prompts times n (or best_of) must be at most {MAX_CHOICES}"
            raise PydanticCustomError("value_error", rule, {"param": "n"})
        return self

    @property
    def num_candidates(self) -> int:
        """Number of outputs that are generated for each prompt. The best `n` of them are returned."""
        return self.n if self.best_of is None else self.best_of


class EmbeddingBody(ModelBody):
    """Body of a request to `POST /v1/embeddings`."""

    input: Annotated[list[str | list[int]], BeforeValidator(_prompts)] = Field(max_length=MAX_INPUTS)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _inputs_have_text(self) -> EmbeddingBody:
        if "" in self.input:
            raise PydanticCustomError("value_error", "an empty text has no embedding", {"param": "input"})
        return self


class AppBody(Body):
    """Body of a request to `POST /v1/apps/{name}`. Omitted inputs and options get the defaults of the application."""

    model: str | None = None
    inputs: dict[str, Any]
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
