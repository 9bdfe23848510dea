"""The inference engine: concurrent generation requests for one model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Self

from groundup.core.errors import ConfigError
from groundup.inference.mailbox import EventStream
from groundup.inference.request import Completion, GenerationRequest, TokenEvent
from groundup.inference.sequence import GeneratedSequence, prompt_ids
from groundup.inference.worker import Ticket, Worker
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


class Engine:
    """An engine that generates text for concurrent requests. Use it as a context manager, or call `close`.

    The tokens of a request do not depend on other requests. An error in one request is raised to its consumer only.
    The model stays on its device and in its dtype.

    Args:
        model: The language model.
        tokenizer: The model's tokenizer.
        stop_ids: Stop tokens for requests without their own. Default: the tokenizer's EOS.
        max_active: Maximum number of requests that run concurrently. Each has its own KV cache.
        max_waiting: Maximum number of queued requests.
        read_timeout: Seconds after which a request is cancelled if its 256 buffered events are not read.
        worker: The worker of another engine, whose limits then apply. Default: a new worker.

    Raises:
        ConfigError: The tokenizer has more ids than the model.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        stop_ids: tuple[int, ...] | None = None,
        max_active: int = 8,
        max_waiting: int = 256,
        read_timeout: float = 60.0,
        worker: Worker | None = None,
    ) -> None:
        if model.config.vocab_size < tokenizer.min_vocab_size:
            raise ConfigError(
                f"tokenizer with {tokenizer.min_vocab_size:,} ids, model with vocab_size = {model.config.vocab_size:,}",
                rule="the tokenizer has ids that are not in the model's vocabulary",
                fix="Use the tokenizer in the model directory.",
            )
        self.model = model
        self.tokenizer = tokenizer
        # Extra embedding rows are padding. Extra token ids belong to other modalities, such as images.
        self.vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
        self._stop_ids = frozenset((tokenizer.eos_id,) if stop_ids is None else stop_ids)
        self._worker = worker or Worker(max_active, max_waiting, read_timeout)

    def share_worker(
        self, model: Transformer, tokenizer: Tokenizer, *, stop_ids: tuple[int, ...] | None = None
    ) -> Engine:
        """Return an engine for another model that shares this engine's thread and request limits.

        Closing either engine closes both.

        Args:
            model: The other model.
            tokenizer: The other model's tokenizer.
            stop_ids: Stop tokens for requests without their own. Default: the tokenizer's EOS.

        Returns:
            The new engine.

        Raises:
            ConfigError: The tokenizer has more ids than the model.
        """
        return Engine(model, tokenizer, stop_ids=stop_ids, worker=self._worker)

    def submit(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        """Queue a request and return an async iterator over its events.

        The request is cancelled if the iterator is closed or garbage-collected, or if the consumer's task is cancelled.

        Args:
            request: The generation request.

        Returns:
            The events. Only the last one has a finish reason.

        Raises:
            ConfigError: The prompt does not fit into the context, or the request id is in use.
            ResourceError: Too many requests are waiting, or the engine is closed.
        """
        return self._events(self._enqueue(request))

    def stream(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        """Queue a request and return a synchronous iterator over its events; see `submit`."""
        return self._events(self._enqueue(request))

    def complete(self, request: GenerationRequest, *, on_text: Callable[[str], object] | None = None) -> Completion:
        """Run a request to its end and return the completion. Raises the same errors as `submit`.

        Args:
            request: The generation request.
            on_text: Called with each piece of text as it is generated.

        Returns:
            The completion.
        """
        ticket = self._enqueue(request)
        events = []
        for event in self._events(ticket):
            events.append(event)
            if on_text is not None and event.text:
                on_text(event.text)
        return Completion.of(events, prompt_tokens=len(ticket.ids))

    def cancel(self, request_id: str) -> bool:
        """Cancel a request. Its consumer receives an event with the finish reason "cancelled".

        Args:
            request_id: `GenerationRequest.id`.

        Returns:
            Whether the request was waiting or running.
        """
        return self._worker.cancel(request_id)

    @property
    def busy(self) -> bool:
        """Whether a request is waiting or running."""
        return self._worker.busy

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._worker.closed

    def close(self) -> None:
        """Cancel all requests and stop the engine's thread."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, ticket: Ticket) -> GeneratedSequence:
        """Return a new sequence for a request that becomes active. For the worker only."""
        return GeneratedSequence(ticket.request, ticket.ids, self.model, self.tokenizer, self._stop_ids)

    def step(self, sequence: GeneratedSequence) -> TokenEvent | None:
        """Run one prefill chunk or one decode step of a sequence. For the worker only.

        Args:
            sequence: The sequence.

        Returns:
            The event of the sampled token; None during prefill.
        """
        device = self.model.lm_head.weight.device
        h_BTD = self.model.model(sequence.next_ids().to(device)[None], cache=sequence.cache)
        # During prefill, only the logits of the last token are needed.
        logits_V = self.model.logits(h_BTD[0, -1]).cpu()[: self.vocab_size]
        return sequence.accept(logits_V) if sequence.prefilled else None

    def _enqueue(self, request: GenerationRequest) -> Ticket:
        context_length = self.model.config.context_length
        ids = prompt_ids(request, self.tokenizer, vocab_size=self.vocab_size, context_length=context_length)
        return self._worker.enqueue(request, ids, self)

    def _events(self, ticket: Ticket) -> EventStream:
        return EventStream(ticket.mailbox, partial(self._worker.release, ticket))
