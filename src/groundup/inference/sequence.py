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
from groundup.inference.prompt_outputs import MeanPooling, PromptLogprobs, prompt_reader, token_logprob
from groundup.inference.repetition import RepeatedNgrams
from groundup.inference.request import FinishReason, GenerationRequest, TokenEvent, TokenLogprob
from groundup.inference.sampling import sample
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
    longest = context_length - (request.max_tokens != 0)
    if len(ids) > longest:
        raise ConfigError(
            f"prompt: {len(ids)} tokens",
            rule=f"prompt and output must fit into the context of {context_length} tokens",
            fix=f"Shorten the prompt to {longest} tokens or fewer.",
        )
    if request.prompt_logprobs_start >= len(ids):
        raise ConfigError(
            f"prompt_logprobs_start = {request.prompt_logprobs_start}",
            rule=f"prompt_logprobs_start must be an index of the prompt, which has {len(ids)} tokens",
            fix="Set a smaller index, e.g. 0.",
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
    """The state of one request: its tokens, random generator and buffered text.

    For each step, compute the logits after the last of `ids` and pass them to `accept`.

    Args:
        request: The request.
        prompt_ids: Token ids of the prompt.
        tokenizer: For decoding.
        context_length: Maximum number of tokens of prompt and output.
        vocab_size: Number of tokens that can be sampled.
        stop_ids: Stop tokens if the request has none.

    Attributes:
        ids: Token ids of the prompt and of the output so far.
        max_length: Maximum number of tokens of prompt and output.
        cached_tokens: Number of prompt tokens that no forward pass computed; see `note_computed`.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt_ids: Sequence[int],
        tokenizer: Tokenizer,
        context_length: int,
        vocab_size: int,
        stop_ids: frozenset[int],
    ) -> None:
        self.request = request
        self.ids = list(prompt_ids)
        self._n_prompt = len(prompt_ids)
        self.cached_tokens = len(prompt_ids)
        self._max_tokens = _max_output_tokens(request, len(prompt_ids), context_length)
        self.max_length = len(prompt_ids) + self._max_tokens
        self._stop_ids = stop_ids if request.stop_ids is None else frozenset(request.stop_ids)
        self._guide = request.grammar.start(self._max_tokens, self._stop_ids) if request.grammar else None
        if self._guide is not None:
            self._stop_ids = self._guide.stop_ids
        size = request.sampling.no_repeat_ngram_size
        self._repeated = RepeatedNgrams(size, tokenizer, request.unrepeated) if size else None
        starts_text = request.is_reply or prompt_ids[-1] in tokenizer.special_ids
        self._decoder = StreamDecoder(tokenizer, continues=not starts_text, shown_ids=request.shown_ids)
        self._scanner = StopScanner(request.stop)
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)
        self._vocab_size = vocab_size
        self._reader = prompt_reader(request, prompt_ids, vocab_size)

    @property
    def samples(self) -> bool:
        """Whether tokens are generated, and not only outputs of the prompt."""
        return self._max_tokens > 0

    @property
    def reader(self) -> PromptLogprobs | MeanPooling | None:
        """The reader of the prompt's outputs, or None if it has read them all or is not needed."""
        return self._reader if self._reader is not None and self._reader.position < self._reader.end else None

    @property
    def reusable_ids(self) -> Sequence[int]:
        """The first ids. The prefix cache may replace the computation of all of them but the last one."""
        return self.ids if self.reader is None else self.ids[: self.reader.position + 1]

    def note_computed(self, count: int) -> None:
        """Note that the next forward pass computes `count` tokens."""
        if len(self.ids) == self._n_prompt:  # more than the prompt has if the request is preempted
            self.cached_tokens = max(0, self.cached_tokens - count)

    def accept(self, logits_V: Tensor) -> TokenEvent:
        """Sample the next token.

        Args:
            logits_V: Logits of the last input token, (V,), fp32, on the CPU.

        Returns:
            The event of the sampled token.
        """
        request = self.request
        possible_V = logits_V[: self._vocab_size]
        if self._guide is not None:
            possible_V = self._guide.mask(possible_V)
        if self._repeated is not None:
            possible_V = self._repeated.exclude(possible_V)
        prompt, output = self.ids[: self._n_prompt], self.ids[self._n_prompt :]
        token = sample(possible_V, request.sampling, prompt, output, self._generator)
        if self._guide is not None:
            token = self._guide.accept(token)
        if self._repeated is not None:
            self._repeated.add(token)
        self.ids.append(token)
        text, reason = self._decode(token)
        scored = token_logprob(logits_V, token, request.logprobs, self._vocab_size)
        is_first = len(self.ids) == self._n_prompt + 1
        return TokenEvent(
            request.id,
            token,
            text,
            logprob=scored.logprob,
            top_logprobs=scored.top_logprobs,
            finish_reason=reason,
            cached_tokens=self.cached_tokens,
            prompt_logprobs=self._prompt_logprobs() if is_first else (),
        )

    def finish(self) -> TokenEvent:
        """Return the only event of a request that does not generate tokens."""
        embedding = self._reader.result() if isinstance(self._reader, MeanPooling) else None
        return TokenEvent(
            self.request.id,
            None,
            "",
            finish_reason="length",
            cached_tokens=self.cached_tokens,
            prompt_logprobs=self._prompt_logprobs(),
            embedding=embedding,
        )

    def cancelled(self) -> TokenEvent:
        """Return the last event of a cancelled request."""
        return TokenEvent(self.request.id, None, self._flush(), finish_reason="cancelled")

    def _prompt_logprobs(self) -> tuple[TokenLogprob, ...]:
        return self._reader.result() if isinstance(self._reader, PromptLogprobs) else ()

    def _decode(self, token: int) -> tuple[str, FinishReason | None]:
        """Return the text that a new token completes, and the finish reason if it ends the output."""
        if token in self._stop_ids:
            return self._flush(), "length" if self._truncated else "stop"
        text = self._scanner.feed(self._decoder.feed([token]))
        if self._scanner.stopped:
            return text, "stop"
        finished = self._guide is not None and self._guide.finished
        if len(self.ids) < self.max_length and not finished:
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
