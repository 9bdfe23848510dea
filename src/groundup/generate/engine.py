"""The engine: one thread that steps all active requests in turn, and the doors for them to come and go."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from groundup.errors import ConfigError, ResourceError
from groundup.generate.mailbox import EventStream, Mailbox
from groundup.generate.request import Completion, GenerationRequest, TokenEvent
from groundup.generate.sequence import GeneratedSequence, prompt_ids
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

_MAILBOX_EVENTS = 256  # a consumer that is further behind pauses its request, and only its own


@dataclass(slots=True, eq=False)
class _Ticket:
    """A request inside the engine."""

    request: GenerationRequest
    ids: tuple[int, ...]
    mailbox: Mailbox
    sequence: GeneratedSequence | None = None  # made when the request becomes active: it holds the cache
    cancelled: bool = False


class Engine:
    """Generates text for many requests at once. Use it as a context manager, or `close` it.

    A request gives the same tokens whatever else the engine does. An error inside one request reaches its
    consumer only. The model is used as it is, on its own device and in its own precision.

    Args:
        stop_ids: tokens that end a request which names none itself; the tokenizer's EOS by default.
        max_active: requests that are stepped at a time; each has a key-value cache of its own.
        max_waiting: requests that may wait for their turn.

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
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._tickets: dict[str, _Ticket] = {}
        self._waiting: deque[_Ticket] = deque()
        self._active: list[_Ticket] = []  # touched by the worker only
        self._changed = threading.Condition()
        self._closed = False
        self._worker: threading.Thread | None = None

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
        with self._changed:
            ticket = self._tickets.get(request_id)
            if ticket is None:
                return False
            ticket.cancelled = True
            self._changed.notify()
            return True

    def close(self) -> None:
        """Cancel what is under way and end the engine's thread."""
        with self._changed:
            self._closed = True
            for ticket in self._tickets.values():
                ticket.cancelled = True
            self._changed.notify()
        if self._worker is not None:
            self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self, request: GenerationRequest) -> _Ticket:
        context_length = self.model.config.context_length
        ids = prompt_ids(request, self.tokenizer, vocab_size=self.vocab_size, context_length=context_length)
        with self._changed:
            if self._closed:
                raise ResourceError(
                    f"request {request.id}", rule="a closed engine takes none", fix="Make a new Engine."
                )
            if request.id in self._tickets:
                raise ConfigError(
                    f"request id {request.id!r}",
                    rule="ids of requests under way differ",
                    fix="Leave the id out to get a fresh one.",
                )
            if len(self._waiting) >= self._max_waiting:
                raise ResourceError(
                    f"{len(self._waiting)} requests are waiting",
                    rule=f"this engine lets {self._max_waiting} wait",
                    fix="Try again when some have finished, or raise max_waiting.",
                )
            ticket = _Ticket(request, ids, Mailbox(_MAILBOX_EVENTS, self._notify))
            self._tickets[request.id] = ticket
            self._waiting.append(ticket)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="groundup-engine", daemon=True)
                self._worker.start()
            self._changed.notify()
        return ticket

    def _leave(self, ticket: _Ticket) -> None:
        """Cancel a request that may have ended already; its id may since be another's."""
        with self._changed:
            if self._tickets.get(ticket.request.id) is ticket:
                self.cancel(ticket.request.id)

    def _events(self, ticket: _Ticket) -> EventStream:
        return EventStream(ticket.mailbox, partial(self._leave, ticket))

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        with torch.inference_mode():
            while self._admit():
                for ticket in list(self._active):
                    if ticket.cancelled or not ticket.mailbox.full:
                        self._advance(ticket)

    def _admit(self) -> bool:
        """Wait for something to do and let waiting requests in. False: the engine is closed and empty."""
        with self._changed:
            while True:
                for ticket in list(self._waiting):
                    # One that leaves need not wait for a place.
                    if ticket.cancelled or len(self._active) < self._max_active:
                        self._waiting.remove(ticket)
                        self._active.append(ticket)
                if any(ticket.cancelled or not ticket.mailbox.full for ticket in self._active):
                    return True
                if self._closed and not self._active:
                    return False
                self._changed.wait()

    def _advance(self, ticket: _Ticket) -> None:
        """Take one request one step further. Whatever goes wrong in it is its own consumer's to hear."""
        event: TokenEvent | Exception | None
        try:
            event = self._step(ticket)
        except Exception as error:
            event = error
        if event is None:
            return
        if isinstance(event, Exception) or event.finish_reason is not None:
            self._active.remove(ticket)
            with self._changed:
                del self._tickets[ticket.request.id]
        ticket.mailbox.put(event)

    def _step(self, ticket: _Ticket) -> TokenEvent | None:
        if ticket.sequence is None:
            if ticket.cancelled:
                return TokenEvent(ticket.request.id, None, "", finish_reason="cancelled")
            ticket.sequence = GeneratedSequence(ticket.request, ticket.ids, self.model, self.tokenizer, self._stop_ids)
        sequence = ticket.sequence
        if ticket.cancelled:
            return sequence.cancelled()
        logits_V = self._logits(sequence)
        return sequence.accept(logits_V) if sequence.prefilled else None

    def _logits(self, sequence: GeneratedSequence) -> Tensor:
        """Feed a sequence's next ids; logits (V,) of the last of them, fp32 on the CPU."""
        device = self.model.lm_head.weight.device
        h_BTD = self.model.model(sequence.next_ids().to(device)[None], cache=sequence.cache)
        # Only the last token's row meets the vocabulary: a prompt's other logits are nobody's business.
        return self.model.logits(h_BTD[0, -1]).cpu()[: self.vocab_size]
