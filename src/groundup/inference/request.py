"""What is asked of the engine and what comes back. Batching and paging come behind it."""

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
    """One text to go on with.

    Attributes:
        prompt: text, which is encoded with BOS in front where that is how the model's texts began in training
            (the empty text asks for a document from nothing); or token ids, taken as they are.
        answers: what is generated is a text of its own, not the prompt's continuation: a space that SentencePiece's
            vocabularies put before a text is then no part of it.
        sampling: how the next token is drawn.
        max_tokens: tokens to generate at most; None goes on to the end of the context.
        stop: generation ends before the first of these texts appears; it is not part of the output.
        stop_ids: generation ends with one of these tokens; None means the engine's own (those of the model
            directory), `()` means no token stops it.
        seed: draws are a function of seed, prompt and model alone, whatever else the engine runs; None picks
            one.
        grammar: what the output must be, as a whole, whenever it ends; made for the engine's tokenizer. The reason is
            then "length" where the text was brought to its end sooner than the model would have.
        logprobs: how many most likely alternatives each event names besides the logprob of the drawn token.
        id: names the request in its events and for `Engine.cancel`.

    Raises:
        ConfigError: a value that no generation can satisfy.
    """

    prompt: str | tuple[int, ...]
    answers: bool = False
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
                rule="a request generates at least 1 token",
                fix="Give max_tokens >= 1, or leave it out to write to the end of the context.",
            )
        if not isinstance(self.prompt, str) and not self.prompt:
            raise ConfigError(
                "prompt: no token ids",
                rule="a model needs one token to start from",
                fix="Begin with the tokenizer's bos_id, or give the prompt as text.",
            )
        if not isinstance(self.stop, tuple) or "" in self.stop:
            raise ConfigError(
                f"stop = {self.stop!r}",
                rule="stop is a tuple of texts, none of them empty",
                fix='Give e.g. stop=("\\n\\n",), or () for none.',
            )
        if self.stop and self.grammar is not None:
            raise ConfigError(
                f"stop = {self.stop!r}",
                rule="an output that must be whole cannot end before a text that may be in the middle of it",
                fix="Leave stop out: the output ends by itself when it is whole.",
            )
        if self.logprobs < 0:
            raise ConfigError(
                f"logprobs = {self.logprobs}",
                rule="the number of alternatives is 0 or more",
                fix="Give logprobs >= 0.",
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(
                f"seed = {self.seed}",
                rule="a seed is an integer from 0 to 2^63 - 1",
                fix="Give another seed, e.g. 0.",
            )


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token, or the end of a request that was cancelled.

    Attributes:
        request_id: whose event this is.
        token_id: the token drawn; None only in the event of a cancellation.
        text: what became certain with it. It may be empty (half a character, the beginning of a stop text, a
            stop token) and may hold what earlier tokens held back; the texts of a request join to its output.
        logprob: natural logarithm of the token's probability under the model itself: before temperature,
            penalties and filters.
        top_logprobs: the most likely (id, logprob) under the model, best first, as many as were asked for.
        finish_reason: None until the last event of the request.
    """

    request_id: str
    token_id: int | None
    text: str
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished generation.

    Attributes:
        text: the output, without prompt and stop text.
        token_ids: every token drawn, a stop token at the end included.
        logprobs: one for each of `token_ids`.
        finish_reason: "stop" (a stop token or text), "length" (max_tokens, or the end of the context) or
            "cancelled".
        prompt_tokens: the length of the encoded prompt.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int

    @classmethod
    def of(cls, events: Sequence[TokenEvent], *, prompt_tokens: int) -> Completion:
        """Gather the events of one request, of which the last has the finish reason."""
        reason = events[-1].finish_reason
        assert reason is not None, "a stream of events ends with its finish reason"
        return cls(
            text="".join(event.text for event in events),
            token_ids=tuple(event.token_id for event in events if event.token_id is not None),
            logprobs=tuple(event.logprob for event in events if event.logprob is not None),
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
        )
