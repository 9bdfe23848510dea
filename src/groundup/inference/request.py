"""The engine's interface: generation requests, token events and completions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from groundup.core.errors import ConfigError
from groundup.inference.grammar import Grammar
from groundup.inference.sampling import Sampling

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A prompt with its generation settings.

    Attributes:
        prompt: Text or token ids. Text is encoded with BOS if the model was trained with it; an empty prompt generates
            a document from BOS. Token ids are used unchanged.
        is_reply: The output is a new text, such as a chat reply, and not a continuation of the prompt. The space that
            SentencePiece vocabularies put before a text is then removed from the output.
        sampling: Sampling settings.
        max_tokens: Maximum number of tokens to generate. Default: up to the end of the context.
        stop: Stop texts. Generation ends before the first of them, and the output does not include it.
        stop_ids: Stop tokens. Default: the engine's stop tokens. `()`: no stop tokens.
        seed: Random seed. The output depends only on seed, prompt and model, not on other requests. Default: random.
        grammar: Grammar that the output must follow, compiled for the engine's tokenizer. If the token limit forces an
            early end, the output is still valid and the finish reason is "length".
        logprobs: Number of most likely tokens reported per event, in addition to the sampled one.
        id: Request id, for events and for `Engine.cancel`. Default: random.

    Raises:
        ConfigError: A value is out of range, or values contradict each other.
    """

    prompt: str | tuple[int, ...]
    is_reply: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] | None = None
    seed: int | None = None
    grammar: Grammar | None = None
    logprobs: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(
                f"max_tokens = {self.max_tokens}",
                rule="max_tokens must be at least 1",
                fix="Set max_tokens >= 1, or omit it to generate up to the end of the context.",
            )
        if not isinstance(self.prompt, str) and not self.prompt:
            raise ConfigError(
                "prompt: no token ids",
                rule="a prompt needs at least 1 token",
                fix="Start with the tokenizer's bos_id, or pass the prompt as text.",
            )
        if not isinstance(self.stop, tuple) or "" in self.stop:
            raise ConfigError(
                f"stop = {self.stop!r}",
                rule="stop must be a tuple of non-empty strings",
                fix='Set e.g. stop=("\\n\\n",), or () for no stop texts.',
            )
        if self.stop and self.grammar is not None:
            raise ConfigError(
                f"stop = {self.stop!r}",
                rule="stop cannot be combined with a grammar, because a stop text could cut the output",
                fix="Omit stop: generation ends when the output is complete.",
            )
        if self.logprobs < 0:
            raise ConfigError(
                f"logprobs = {self.logprobs}",
                rule="logprobs must be 0 or more",
                fix="Set logprobs >= 0.",
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(
                f"seed = {self.seed}",
                rule="seed must be an integer from 0 to 2^63 - 1",
                fix="Set another seed, e.g. 0.",
            )


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token, or the cancellation of a request.

    Attributes:
        request_id: The request's id.
        token_id: The sampled token; None if the request was cancelled.
        text: New text. It is empty for part of a character, for the start of a possible stop text and for a stop token;
            a later event then has the buffered text. The texts of all events join to the output.
        logprob: Log-probability (natural) of the token under the model, before temperature, penalties and filters.
        top_logprobs: The `GenerationRequest.logprobs` most likely tokens as (id, log-probability), most likely first.
        finish_reason: None, except in the last event of the request.
    """

    request_id: str
    token_id: int | None
    text: str
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The output of a finished request.

    Attributes:
        text: The output, without prompt and stop text.
        token_ids: All sampled tokens, including a final stop token.
        logprobs: Log-probability of each of `token_ids`.
        finish_reason: "stop" (a stop token or stop text), "length" (max_tokens or the end of the context) or
            "cancelled".
        prompt_tokens: Number of tokens of the prompt.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int

    @classmethod
    def of(cls, events: Sequence[TokenEvent], *, prompt_tokens: int) -> Completion:
        """Return the completion that the events of one request describe.

        Args:
            events: All events. The last one has the finish reason.
            prompt_tokens: Number of tokens of the prompt.

        Returns:
            The completion.
        """
        reason = events[-1].finish_reason
        assert reason is not None, "a stream of events ends with its finish reason"
        return cls(
            text="".join(event.text for event in events),
            token_ids=tuple(event.token_id for event in events if event.token_id is not None),
            logprobs=tuple(event.logprob for event in events if event.logprob is not None),
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
        )
