"""One request on its way: which tokens to feed the model next, and what its logits lead to. No threads here.

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
    """Passes text on until one of the stop texts appears, wherever the pieces of the stream are cut."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Take the next piece of the stream and return the text that has become certain.

        Once a stop text is complete, `stopped` is true and the text before it has been returned. The one that
        is complete first counts (of several, the longest), so that the cuts of the stream make no difference.
        """
        self._held += piece
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found)[1], keep=False)
        return self._release(len(self._held) - self._unsafe_suffix())

    def flush(self) -> str:
        """The text still held back, which ended without becoming a stop text."""
        return self._release(len(self._held))

    def _release(self, count: int, *, keep: bool = True) -> str:
        text, rest = self._held[:count], self._held[count:]
        self._held = rest if keep else ""
        return text

    def _unsafe_suffix(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            suffix = self._held[-length:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return length
        return 0


# A prompt is fed in pieces, so that a long one does not hold up the other requests. The size is fixed: pieces
# that depended on the load would round differently, and a request would no longer be a function of itself
# alone.
PREFILL_TOKENS = 256


def prompt_ids(
    request: GenerationRequest, tokenizer: Tokenizer, *, vocab_size: int, context_length: int
) -> tuple[int, ...]:
    """The token ids that the request starts from.

    Raises:
        ConfigError: the prompt leaves no room in the context, or too little for the request's grammar; or an id is not
            in the vocabulary.
    """
    ids = request.prompt
    if isinstance(ids, str):
        ids = tuple(tokenizer.encode_prompt(ids))
    if len(ids) >= context_length:
        raise ConfigError(
            f"prompt: {len(ids)} tokens",
            rule=f"prompt and output share a context of {context_length} tokens",
            fix=f"Shorten the prompt to {context_length - 1} tokens or fewer.",
        )
    unknown = [token for token in ids if not 0 <= token < vocab_size]
    if unknown:
        raise ConfigError(
            f"prompt: token id {unknown[0]}",
            rule=f"the vocabulary holds the ids 0 to {vocab_size - 1}",
            fix="Encode the prompt with the tokenizer of this model.",
        )
    if request.grammar is not None:
        request.grammar.require_room(_room(request, len(ids), context_length))
    return ids


def _room(request: GenerationRequest, prompt_tokens: int, context_length: int) -> int:
    """Tokens that the output may have."""
    room = context_length - prompt_tokens
    return room if request.max_tokens is None else min(room, request.max_tokens)


class GeneratedSequence:
    """The state of one request: its cache, its random numbers, the text that is not yet certain.

    Args:
        cache: where its keys and values go; None makes one of its own.

    Call in turn: `next_ids` to know what to feed, the model with `cache`, `accept` with the last token's
    logits. That the model is called from outside is what lets a batch be formed of many sequences.
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
        self._max_tokens = _room(request, len(ids), model.config.context_length)
        self.cache = cache or model.new_cache(1, len(ids) + self._max_tokens)
        self._stop_ids = stop_ids if request.stop_ids is None else frozenset(request.stop_ids)
        self._guide = request.grammar.start(self._max_tokens, self._stop_ids) if request.grammar else None
        if self._guide is not None:
            self._stop_ids = self._guide.stop_ids
        self._prompt_ids = torch.tensor(ids)
        self._output_ids = torch.empty(self._max_tokens, dtype=torch.int64)
        self._n_output = 0
        begins = request.answers or ids[-1] in tokenizer.special_ids
        self._decoder = StreamDecoder(tokenizer, continues=not begins)
        self._scanner = StopScanner(request.stop)
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)

    def next_ids(self) -> Tensor:
        """What the model has not seen yet, (T,), at most PREFILL_TOKENS of it."""
        n_fed, n_prompt = self.cache.length, len(self._prompt_ids)
        if n_fed < n_prompt:
            return self._prompt_ids[n_fed : n_fed + PREFILL_TOKENS]
        return self._output_ids[n_fed - n_prompt : self._n_output]

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompt has been fed, so that the last logits are those of the next token."""
        return self.cache.length >= len(self._prompt_ids)

    def accept(self, logits_V: Tensor) -> TokenEvent:
        """Draw the next token from the logits (V,), fp32 on the CPU, of the last token fed."""
        request = self.request
        possible_V = logits_V if self._guide is None else self._guide.mask(logits_V)
        token = sample(
            possible_V, request.sampling, self._prompt_ids, self._output_ids[: self._n_output], self._generator
        )
        if self._guide is not None:
            token = self._guide.accept(token)
        self._output_ids[self._n_output] = token
        self._n_output += 1
        text, reason = self._read(token)
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
        """The event that ends a cancelled request."""
        return TokenEvent(self.request.id, None, self._rest(), finish_reason="cancelled")

    def _read(self, token: int) -> tuple[str, FinishReason | None]:
        """The text that has become certain with a new token, and whether generation ends with it."""
        if token in self._stop_ids:
            return self._rest(), "length" if self._was_cut else "stop"
        text = self._scanner.feed(self._decoder.feed([token]))
        if self._scanner.stopped:
            return text, "stop"
        whole = self._guide is not None and self._guide.finished
        if self._n_output < self._max_tokens and not whole:
            return text, None
        text += self._rest()
        return text, "stop" if self._scanner.stopped or (whole and not self._was_cut) else "length"

    @property
    def _was_cut(self) -> bool:
        return self._guide is not None and self._guide.cut

    def _rest(self) -> str:
        """What decoder and scanner still hold back, at the end."""
        text = self._scanner.feed(self._decoder.flush())
        return text if self._scanner.stopped else text + self._scanner.flush()
