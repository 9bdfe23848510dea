"""The state of one generation request: next input ids, sampling, stop texts and decoding.

This module does not use threads.

Shape letters: T tokens, V vocab.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.core.errors import ConfigError
from groundup.inference.request import FinishReason, GenerationRequest, TokenEvent
from groundup.inference.sampling import sample
from groundup.model import KVCache, Transformer
from groundup.tokenizer import StreamDecoder, Tokenizer


class StopScanner:
    """A filter of streamed text that ends the stream before the first stop text.

    Attributes:
        stopped: Whether a stop text was found.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Add a piece of text and return the text that cannot be part of a stop text.

        The result does not depend on how the stream is split into pieces: the stop text that is completed first wins,
        and of several that end at the same character the longest.
        """
        self._held += piece
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found)[1], keep=False)
        return self._release(len(self._held) - self._unsafe_suffix())

    def flush(self) -> str:
        """Return the text that is still buffered, at the end of the stream."""
        return self._release(len(self._held))

    def _release(self, count: int, *, keep: bool = True) -> str:
        text, rest = self._held[:count], self._held[count:]
        self._held = rest if keep else ""
        return text

    def _unsafe_suffix(self) -> int:
        """Return the length of the longest suffix of the buffer that is a prefix of a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            suffix = self._held[-length:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return length
        return 0


# Prefill is split into chunks so that a long prompt does not delay other requests. The chunk size is fixed: if it
# depended on the load, so would rounding, and the same request could give different tokens.
PREFILL_TOKENS = 256


def prompt_ids(
    request: GenerationRequest, tokenizer: Tokenizer, *, vocab_size: int, context_length: int
) -> tuple[int, ...]:
    """Return the token ids of the prompt.

    Raises:
        ConfigError: The prompt leaves too little of the context for the output, or an id is not in the vocabulary.
    """
    ids = request.prompt
    if isinstance(ids, str):
        ids = tuple(tokenizer.encode_prompt(ids))
    if len(ids) >= context_length:
        raise ConfigError(
            f"prompt: {len(ids)} tokens",
            rule=f"prompt and output must fit into the context of {context_length} tokens",
            fix=f"Shorten the prompt to {context_length - 1} tokens or fewer.",
        )
    unknown = [token for token in ids if not 0 <= token < vocab_size]
    if unknown:
        raise ConfigError(
            f"prompt: token id {unknown[0]}",
            rule=f"the vocabulary has the ids 0 to {vocab_size - 1}",
            fix="Encode the prompt with the tokenizer of this model.",
        )
    if request.grammar is not None:
        request.grammar.check_max_tokens(_max_output_tokens(request, len(ids), context_length))
    return ids


def _max_output_tokens(request: GenerationRequest, prompt_tokens: int, context_length: int) -> int:
    """Return the maximum number of output tokens."""
    available = context_length - prompt_tokens
    return available if request.max_tokens is None else min(available, request.max_tokens)


class GeneratedSequence:
    """The state of one request: KV cache, random generator and buffered text.

    For each step, run the model on `next_ids` with `cache`, then pass the last token's logits to `accept`. The caller
    runs the model, so it can batch several sequences.

    Args:
        request: The request.
        ids: Token ids of the prompt.
        model: Its config and device determine the KV cache.
        tokenizer: For decoding.
        stop_ids: Stop tokens if the request has none.
        cache: The KV cache. Default: a new one.
    """

    def __init__(
        self,
        request: GenerationRequest,
        ids: tuple[int, ...],
        model: Transformer,
        tokenizer: Tokenizer,
        stop_ids: frozenset[int],
        cache: KVCache | None = None,
    ) -> None:
        self.request = request
        self._max_tokens = _max_output_tokens(request, len(ids), model.config.context_length)
        self.cache = cache or model.new_cache(1, len(ids) + self._max_tokens)
        self._stop_ids = stop_ids if request.stop_ids is None else frozenset(request.stop_ids)
        self._guide = request.grammar.start(self._max_tokens, self._stop_ids) if request.grammar else None
        if self._guide is not None:
            self._stop_ids = self._guide.stop_ids
        self._prompt_ids = torch.tensor(ids)
        self._output_ids = torch.empty(self._max_tokens, dtype=torch.int64)
        self._n_output = 0
        starts_text = request.is_reply or ids[-1] in tokenizer.special_ids
        self._decoder = StreamDecoder(tokenizer, continues=not starts_text)
        self._scanner = StopScanner(request.stop)
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)

    def next_ids(self) -> Tensor:
        """Return the next input ids (T,): at most PREFILL_TOKENS of the prompt, or the last output token."""
        n_fed, n_prompt = self.cache.length, len(self._prompt_ids)
        if n_fed < n_prompt:
            return self._prompt_ids[n_fed : n_fed + PREFILL_TOKENS]
        return self._output_ids[n_fed - n_prompt : self._n_output]

    @property
    def prefilled(self) -> bool:
        """Whether the model has processed the whole prompt."""
        return self.cache.length >= len(self._prompt_ids)

    def accept(self, logits_V: Tensor) -> TokenEvent:
        """Sample the next token.

        Args:
            logits_V: Logits of the last input token, (V,), fp32, on the CPU.

        Returns:
            The event of the sampled token.
        """
        request = self.request
        possible_V = logits_V if self._guide is None else self._guide.mask(logits_V)
        token = sample(
            possible_V, request.sampling, self._prompt_ids, self._output_ids[: self._n_output], self._generator
        )
        if self._guide is not None:
            token = self._guide.accept(token)
        self._output_ids[self._n_output] = token
        self._n_output += 1
        text, reason = self._decode(token)
        logprobs_V = logits_V.log_softmax(dim=-1)
        top = logprobs_V.topk(min(request.logprobs, len(logprobs_V)))
        return TokenEvent(
            request.id,
            token,
            text,
            logprob=float(logprobs_V[token]),
            top_logprobs=tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)),
            finish_reason=reason,
        )

    def cancelled(self) -> TokenEvent:
        """Return the last event of a cancelled request."""
        return TokenEvent(self.request.id, None, self._flush(), finish_reason="cancelled")

    def _decode(self, token: int) -> tuple[str, FinishReason | None]:
        """Return the text that a new token completes, and the finish reason if it ends the output."""
        if token in self._stop_ids:
            return self._flush(), "length" if self._truncated else "stop"
        text = self._scanner.feed(self._decoder.feed([token]))
        if self._scanner.stopped:
            return text, "stop"
        finished = self._guide is not None and self._guide.finished
        if self._n_output < self._max_tokens and not finished:
            return text, None
        text += self._flush()
        return text, "stop" if self._scanner.stopped or (finished and not self._truncated) else "length"

    @property
    def _truncated(self) -> bool:
        return self._guide is not None and self._guide.truncated

    def _flush(self) -> str:
        """Return the text that the decoder and the scanner still buffer."""
        text = self._scanner.feed(self._decoder.flush())
        return text if self._scanner.stopped else text + self._scanner.flush()
