"""The engine: a model with its tokenizer, and the doors for requests to come and go."""

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
    """Generates text for many requests at once. Use it as a context manager, or `close` it.

    A request gives the same tokens whatever else the engine does. An error inside one request reaches its
    consumer only. The model is used as it is, on its own device and in its own precision.

    Args:
        stop_ids: tokens that end a request which names none itself; the tokenizer's EOS by default.
        max_active: requests that are stepped at a time; each has a key-value cache of its own.
        max_waiting: requests that may wait for their turn.
        unread_seconds: a request that has made 256 events of which none is read for so long is cancelled.
        worker: another engine's, to share; it keeps its own limits.

    Raises:
        ConfigError: model and tokenizer do not belong together.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        stop_ids: tuple[int, ...] | None = None,
        max_active: int = 8,
        max_waiting: int = 256,
        unread_seconds: float = 60.0,
        worker: Worker | None = None,
    ) -> None:
        if model.config.vocab_size < tokenizer.least_rows:
            raise ConfigError(
                f"a tokenizer of {tokenizer.least_rows:,} ids for a model of {model.config.vocab_size:,}",
                rule="a model knows every id that text can have",
                fix="Use the tokenizer that lies in the model's directory.",
            )
        self.model = model
        self.tokenizer = tokenizer
        # Rows beyond the tokenizer's only pad the matrix; ids beyond the rows are tokens of other media.
        self.vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
        self._stop_ids = frozenset((tokenizer.eos_id,) if stop_ids is None else stop_ids)
        self._worker = worker or Worker(max_active, max_waiting, unread_seconds)

    def beside(self, model: Transformer, tokenizer: Tokenizer, *, stop_ids: tuple[int, ...] | None = None) -> Engine:
        """An engine of another model on the same thread: both together keep the limits of the one, and end together.

        Raises:
            ConfigError: model and tokenizer do not belong together.
        """
        return Engine(model, tokenizer, stop_ids=stop_ids, worker=self._worker)

    def submit(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        """Take a request in now and return its events, the last of which has a finish reason.

        When the consumer goes away (its task is cancelled, the iterator is closed or dropped), so does the
        request.

        Raises:
            ConfigError: the prompt does not fit into the context, or the id is in use.
            ResourceError: too many requests are waiting, or the engine is closed.
        """
        return self._events(self._enter(request))

    def stream(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        """`submit` for a caller without an event loop. Raises the same errors, at once."""
        return self._events(self._enter(request))

    def complete(self, request: GenerationRequest, *, on_text: Callable[[str], object] | None = None) -> Completion:
        """Generate to the end and return everything together. Raises the same errors as `submit`.

        Args:
            on_text: called with each piece of the text as soon as it is certain.
        """
        ticket = self._enter(request)
        events = []
        for event in self._events(ticket):
            events.append(event)
            if on_text is not None and event.text:
                on_text(event.text)
        return Completion.of(events, prompt_tokens=len(ticket.ids))

    def cancel(self, request_id: str) -> bool:
        """End a request; its consumer gets an event with the reason "cancelled". False: no such request."""
        return self._worker.cancel(request_id)

    @property
    def busy(self) -> bool:
        """Whether a request is under way or waits."""
        return self._worker.busy

    @property
    def closed(self) -> bool:
        """Whether `close` has been called: then what was under way has been cancelled."""
        return self._worker.closed

    def close(self) -> None:
        """Cancel what is under way and end the engine's thread."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, ticket: Ticket) -> GeneratedSequence:
        """The sequence of a request that becomes active; the worker calls it."""
        return GeneratedSequence(ticket.request, ticket.ids, self.model, self.tokenizer, self._stop_ids)

    def step(self, sequence: GeneratedSequence) -> TokenEvent | None:
        """Feed a sequence's next ids, and draw the token after them once its prompt is read; the worker calls it."""
        device = self.model.lm_head.weight.device
        h_BTD = self.model.model(sequence.next_ids().to(device)[None], cache=sequence.cache)
        # Only the last token's row meets the vocabulary: a prompt's other logits are nobody's business.
        logits_V = self.model.logits(h_BTD[0, -1]).cpu()[: self.vocab_size]
        return sequence.accept(logits_V) if sequence.prefilled else None

    def _enter(self, request: GenerationRequest) -> Ticket:
        context_length = self.model.config.context_length
        ids = prompt_ids(request, self.tokenizer, vocab_size=self.vocab_size, context_length=context_length)
        return self._worker.enter(request, ids, self)

    def _events(self, ticket: Ticket) -> EventStream:
        return EventStream(ticket.mailbox, partial(self._worker.leave, ticket))
