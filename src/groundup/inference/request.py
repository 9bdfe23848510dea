"""Interface of the inference engine: generation requests, token events and completions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from groundup.core.errors import ConfigError
from groundup.inference.grammar import Grammar
from groundup.inference.sampling import Sampling

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of a token.

    Attributes:
        token_id: ID of the token.
        logprob: Log-probability in nats, as computed by the model before temperature, penalties and filters. None for
            the first token of a prompt, because the model does not predict it.
        top_logprobs: The most likely tokens as pairs of ID and log-probability, with the most likely token first.
    """

    token_id: int
    logprob: float | None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A prompt and the settings for its generation.

    Attributes:
        prompt: Text or token IDs. A text is encoded with BOS if the model was trained with BOS. If the prompt is empty,
            the model generates a document from BOS. Token IDs are used unchanged.
        is_reply: Whether the output is a new text, such as a chat reply, and not a continuation of the prompt. If it is
            true, the space that SentencePiece tokenizers add in front of a text is removed from the output.
        sampling: Sampling settings, such as the temperature.
        max_tokens: Maximum number of tokens to generate. Default: the output may fill the rest of the context. With
            0, only the prompt is computed.
        stop: Stop texts. Generation ends when one of them occurs, and the output ends before the stop text.
        stop_ids: IDs of stop tokens. Default: the stop tokens of the engine. An empty tuple means no stop tokens.
        seed: Random seed. For the same seed, prompt and model, the output is the same and does not depend on other
            requests. Default: a random seed.
        grammar: Grammar that the output must match, compiled for the tokenizer of the engine. If the token limit ends
            the output early, the output is still valid and the finish reason is "length".
        unrepeated: Token IDs of texts, such as examples in the prompt. With `sampling.no_repeat_ngram_size`, their
            n-grams cannot occur in the output.
        shown_ids: IDs of special tokens whose names are part of the output. The names of other special tokens are not.
        logprobs: Number of most likely tokens that each event reports, in addition to the sampled token.
        prompt_logprobs: Number of most likely tokens that are reported for each prompt token, in addition to this
            token. Default: the log-probabilities of the prompt are not computed.
        prompt_logprobs_start: Index of the first prompt token whose log-probability is reported. The prefix cache can
            be used for earlier tokens.
        embedding: Whether to compute the embedding of the prompt. Such a request has max_tokens = 0.
        timeout: Number of seconds after which the request fails, including the time in the queue. Default: no limit.
        client: Client that sent the request, such as (address, user). Clients share the engine equally.
        id: ID of the request, which occurs in its events and which `Engine.cancel` accepts. Default: a random ID.

    Raises:
        ConfigError: A value is out of range, or two values contradict each other.
    """

    prompt: str | tuple[int, ...]
    is_reply: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] | None = None
    seed: int | None = None
    grammar: Grammar | None = None
    unrepeated: tuple[tuple[int, ...], ...] = ()
    shown_ids: tuple[int, ...] = ()
    logprobs: int = 0
    prompt_logprobs: int | None = None
    prompt_logprobs_start: int = 0
    embedding: bool = False
    timeout: float | None = None
    client: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 0:
            raise ConfigError(
                f"max_tokens = {self.max_tokens}",
                rule="max_tokens must be 0 or more",
                fix="Set max_tokens >= 0, or omit it to generate up to the end of the context.",
            )
        if self.embedding and (self.max_tokens != 0 or self.prompt_logprobs is not None):
            raise ConfigError(
                f"embedding with max_tokens = {self.max_tokens}, prompt_logprobs = {self.prompt_logprobs}",
                rule="a request for an embedding has no other output",
                fix="Set max_tokens=0, and omit prompt_logprobs.",
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
        for name in ("logprobs", "prompt_logprobs", "prompt_logprobs_start"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} = {value}", rule=f"{name} must be 0 or more", fix=f"Set {name} >= 0.")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(
                f"timeout = {self.timeout}",
                rule="timeout must be greater than 0 seconds",
                fix="Set timeout = 60, for example, or omit it.",
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(
                f"seed = {self.seed}",
                rule="seed must be an integer from 0 to 2^63 - 1",
                fix="Set another seed, e.g. 0.",
            )


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A generated token, or the end of a request without a token.

    Attributes:
        request_id: ID of the request.
        token_id: ID of the sampled token, or None if the request was cancelled or has max_tokens = 0.
        text: New text of the output. It is empty for a stop token, for a part of a character and for the possible start
            of a stop text. In the last two cases, a later event contains the text. The output is the concatenation of
            the texts of all events.
        logprob: Log-probability of the token in nats, as computed by the model before temperature, penalties and
            filters.
        top_logprobs: The most likely tokens as pairs of ID and log-probability, with the most likely token first.
            `GenerationRequest.logprobs` sets their number.
        finish_reason: Reason why the request ended, in its last event. In all other events, the value is None.
        cached_tokens: Number of prompt tokens that were not computed, because the prefix cache held them.
        prompt_logprobs: Log-probabilities of the prompt tokens, in the first event of a request with `prompt_logprobs`.
        embedding: Embedding of the prompt (D,) for a request with `embedding`. It is the mean of the hidden states
            after the final norm over all prompt tokens, divided by its L2 norm.
    """

    request_id: str
    token_id: int | None
    text: str
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    embedding: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The complete output of a finished request.

    Attributes:
        text: Generated text, without the prompt and without the stop text.
        token_ids: IDs of all sampled tokens, including the final stop token if there is one.
        logprobs: Log-probability of each token in `token_ids`.
        finish_reason: "stop" after a stop token or stop text, "length" at `max_tokens` or at the end of the context, or
            "cancelled".
        prompt_tokens: Number of tokens in the prompt.
        cached_tokens: Number of prompt tokens that were not computed, because the prefix cache held them.
        prompt_logprobs: Log-probabilities of the prompt tokens if `GenerationRequest.prompt_logprobs` is set.
        embedding: Embedding of the prompt if `GenerationRequest.embedding` is set; see `TokenEvent`.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    embedding: Tensor | None = None

    @classmethod
    def of(cls, events: Sequence[TokenEvent], *, prompt_tokens: int) -> Completion:
        """Combine the events of one request into a completion.

        Args:
            events: All events of the request in order. The last event contains the finish reason.
            prompt_tokens: Number of tokens in the prompt.

        Returns:
            The output of the request.
        """
        reason = events[-1].finish_reason
        assert reason is not None, "a stream of events ends with its finish reason"
        return cls(
            text="".join(event.text for event in events),
            token_ids=tuple(event.token_id for event in events if event.token_id is not None),
            logprobs=tuple(event.logprob for event in events if event.logprob is not None),
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
            cached_tokens=events[0].cached_tokens,
            prompt_logprobs=events[0].prompt_logprobs,
            embedding=events[-1].embedding,
        )
