"""The worker thread that runs the requests of one or more engines, and their queue."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from groundup.core.errors import ConfigError, ResourceError
from groundup.distributed.ranks import same_gpu_initializer
from groundup.inference.event_queue import EventQueue, WakeUps
from groundup.inference.fairness import OUTPUT_WEIGHT, ClientShare, ClientShares, FairQueue
from groundup.inference.request import GenerationRequest, TokenEvent
from groundup.inference.runner import SequenceCache
from groundup.inference.sequence import GeneratedSequence

_MAX_UNREAD_EVENTS = 256  # a slower consumer pauses its own request only
_NEWCOMER_SHARE = 4  # a quarter more slots and places in the queue, for clients that have none
_TIMEOUT_CHECK_SECONDS = 0.25
_RATE_REQUESTS = 32  # ended requests from which the rate is measured
_MAX_RETRY_SECONDS = 60  # OpenAI's clients ignore longer times


StepResult = TokenEvent | Exception | None
"""The event of a sampled token, an error that ends the request, or None during prefill."""


class QueueFullError(ResourceError):
    """Too many requests are waiting.

    Args:
        num_waiting: Number of waiting requests.
        max_waiting: Limit of the queue.
        retry_seconds: Estimated number of seconds until the queue has space for several requests.
    """

    def __init__(self, num_waiting: int, max_waiting: int, retry_seconds: int) -> None:
        super().__init__(
            f"{num_waiting} requests are waiting",
            rule=f"max_waiting is {max_waiting}",
            fix="Try again when a request has finished, or increase max_waiting.",
        )
        self.retry_seconds = retry_seconds


class RequestTimeoutError(ResourceError):
    """A request did not finish within its timeout.

    Args:
        timeout: Timeout of the request in seconds.
        queue_seconds: Number of seconds that the request waited in the queue.
    """

    def __init__(self, timeout: float, queue_seconds: float) -> None:
        super().__init__(
            f"the request did not finish within {timeout:g} s",
            rule=f"it waited in the queue for {queue_seconds:.1f} s",
            fix="Reduce max_tokens, or send fewer requests at the same time.",
        )


class StepEngine(Protocol):
    """What the worker needs of an engine."""

    def begin(self, state: RequestState) -> GeneratedSequence:
        """Return a new sequence for a request that becomes active."""
        ...

    def step(self, states: Sequence[RequestState], active: Sequence[RequestState]) -> Sequence[StepResult]:
        """Compute the next tokens of active requests; return one result per request.

        Args:
            states: The requests of this engine, the oldest first.
            active: The active requests of all engines, the oldest first.
        """
        ...

    def release(self, state: RequestState) -> None:
        """Free the KV cache of a request that has ended."""
        ...


@dataclass(slots=True, eq=False)
class RequestState:
    """A request in the worker.

    Attributes:
        request: The request.
        ids: Token IDs of its prompt.
        engine: The engine that runs it.
        events: The queue of its events.
        shares: Token counters of its client; see `ClientShares.join`.
        sequence: State of the generation, created when the request becomes active.
        cache: The KV cache. It is None before the first step, and while other requests use all memory.
        cancelled: Whether the request was cancelled.
        timed_out: Whether the request exceeded its timeout.
        submitted: Value of `time.monotonic` when the request was queued.
        started: Value of `time.monotonic` when the request became active.
        last_token: Value of `time.monotonic` when its latest token was sampled.
    """

    request: GenerationRequest
    ids: tuple[int, ...]
    engine: StepEngine
    events: EventQueue
    shares: tuple[ClientShare, ...] = (ClientShare(),)
    sequence: GeneratedSequence | None = None
    cache: SequenceCache | None = None
    cancelled: bool = False
    timed_out: bool = False
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    last_token: float | None = None

    @property
    def client_tokens(self) -> list[float]:
        """Weighted number of tokens that the client has received; requests of clients with fewer tokens are first."""
        return [share.tokens for share in self.shares]


class WorkerObserver(Protocol):
    """Receives what the worker does, for metrics. The worker's thread calls the methods."""

    def on_token(self, state: RequestState, now: float) -> None:
        """Note a sampled token. `state.last_token` is the time of the previous token, or None for the first one."""
        ...

    def on_end(self, state: RequestState, now: float, result: TokenEvent | Exception) -> None:
        """Note the end of a request."""
        ...


class Worker:
    """A thread that runs the steps of active requests. Requests can be added and cancelled at any time.

    Clients share the worker equally: when a request ends, the next one is from the client with the lowest token
    counter. A client without a running request may exceed `max_active` by a quarter, so that it need not wait until a
    request of another client ends. The same holds for a client without a waiting request and `max_waiting`.

    Args:
        max_active: Maximum number of active requests.
        max_waiting: Maximum number of queued requests.
        read_timeout: Seconds after which a request with a full event queue is cancelled, to free its slot for others.
        observer: Receives sampled tokens and ended requests.
    """

    def __init__(
        self,
        max_active: int,
        max_waiting: int,
        read_timeout: float = 60.0,
        *,
        observer: WorkerObserver | None = None,
    ) -> None:
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._read_timeout = read_timeout
        self._observer = observer
        self._states: dict[str, RequestState] = {}
        self._shares = ClientShares()
        self._waiting: FairQueue[RequestState] = FairQueue()
        self._ending: list[RequestState] = []  # cancelled or timed out in the queue; they need no slot
        self._active: list[RequestState] = []  # used by the worker thread only
        self._ended_at: deque[float] = deque(maxlen=_RATE_REQUESTS)
        self._timeouts_checked = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def has_requests(self, engine: StepEngine) -> bool:
        """Return whether a request of an engine is waiting or running."""
        with self._changed:
            return any(state.engine is engine for state in self._states.values())

    @property
    def num_running(self) -> int:
        """Number of running requests."""
        return len(self._active)

    @property
    def num_waiting(self) -> int:
        """Number of queued requests."""
        with self._changed:
            return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def enqueue(self, request: GenerationRequest, ids: tuple[int, ...], engine: StepEngine) -> RequestState:
        """Queue a request.

        Args:
            request: The request.
            ids: Token ids of its prompt.
            engine: The engine that runs it.

        Returns:
            The state of the request, with its event queue.

        Raises:
            ConfigError: The request id is in use.
            QueueFullError: Too many requests are waiting.
            ResourceError: The worker is closed.
        """
        with self._changed:
            if self._closed:
                raise ResourceError(f"request {request.id}", rule="the engine is closed", fix="Create a new Engine.")
            if request.id in self._states:
                raise ConfigError(
                    f"request id {request.id!r}",
                    rule="a waiting or running request has this id",
                    fix="Omit the id to get a new one.",
                )
            shares = self._shares.join(request.client)
            newcomer = self._waiting.num_items(shares) == 0
            if len(self._waiting) >= _limit(self._max_waiting, newcomer=newcomer):
                self._shares.leave(shares)
                raise QueueFullError(len(self._waiting), self._max_waiting, self._retry_seconds())
            state = RequestState(request, ids, engine, EventQueue(_MAX_UNREAD_EVENTS, self._notify), shares)
            self._states[request.id] = state
            self._waiting.put(state, shares)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(same_gpu_initializer(),), name="groundup-engine", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        return state

    def cancel(self, request_id: str) -> bool:
        """Cancel a request.

        Args:
            request_id: `GenerationRequest.id`.

        Returns:
            Whether the request was waiting or running.
        """
        with self._changed:
            state = self._states.get(request_id)
            if state is None:
                return False
            self._cancel(state)
            return True

    def release(self, state: RequestState) -> None:
        """Cancel a request if it has not ended. Its id may belong to a newer request, which is not cancelled."""
        with self._changed:
            if self._states.get(state.request.id) is state:
                self._cancel(state)

    def cancel_all(self, engine: StepEngine) -> None:
        """Cancel all requests of an engine, and wait until they have ended."""
        with self._changed:
            for state in self._states.values():
                if state.engine is engine:
                    self._cancel(state)
            self._changed.wait_for(lambda: all(state.engine is not engine for state in self._states.values()))

    def close(self) -> None:
        """Cancel all requests and stop the thread."""
        with self._changed:
            self._closed = True
            for state in self._states.values():
                self._cancel(state)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _cancel(self, state: RequestState) -> None:
        state.cancelled = True
        if self._waiting.remove(state, state.shares):
            self._ending.append(state)
        self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _retry_seconds(self) -> int:
        """Estimate the number of seconds until a quarter of the queue has been processed."""
        if not self._ended_at:
            return 1
        seconds_per_request = (time.monotonic() - self._ended_at[0]) / len(self._ended_at)
        return min(_MAX_RETRY_SECONDS, max(1, math.ceil(len(self._waiting) / 4 * seconds_per_request)))

    def _work(self, set_device: Callable[[], None]) -> None:
        set_device()
        with torch.inference_mode():
            try:
                while self._admit():
                    self._step()
            except BaseException as error:
                self._fail(error)
                raise

    def _fail(self, error: BaseException) -> None:
        """Report an unexpected error to all consumers, which would otherwise wait forever."""
        wake_ups = WakeUps()
        with self._changed:
            self._closed = True
            for state in self._states.values():
                state.events.put(error, wake_ups)
            self._states.clear()
        wake_ups.send()

    def _admit(self) -> bool:
        """Wait until a request can run, and activate waiting requests. Return False to stop the thread."""
        with self._changed:
            while True:
                self._time_out()
                while (state := self._next_request()) is not None:
                    self._activate(state)
                timeout = self._cancel_unread()
                if self._ending or any(_can_step(state) for state in self._active):
                    return True
                if self._closed and not self._active:
                    return False
                if any(state.request.timeout is not None for state in self._states.values()):
                    timeout = min(_TIMEOUT_CHECK_SECONDS, timeout or _TIMEOUT_CHECK_SECONDS)
                self._changed.wait(timeout)

    def _next_request(self) -> RequestState | None:
        """Return the waiting request that gets the next slot, or None if there is no request or no slot."""
        if len(self._active) < self._max_active:
            return self._waiting.take()
        if len(self._active) < _limit(self._max_active, newcomer=True):
            return self._waiting.take(newcomers_only=True)
        return None

    def _activate(self, state: RequestState) -> None:
        state.started = time.monotonic()
        for share in state.shares:
            share.num_running += 1
            share.tokens += len(state.ids)
        self._active.append(state)

    def _time_out(self) -> None:
        """End the requests that exceed their timeout. The check has a minimum interval because it is not free."""
        now = time.monotonic()
        if now - self._timeouts_checked < _TIMEOUT_CHECK_SECONDS:
            return
        self._timeouts_checked = now
        for state in self._states.values():
            timeout = state.request.timeout
            if timeout is not None and now - state.submitted > timeout:
                state.timed_out = True
                if self._waiting.remove(state, state.shares):
                    self._ending.append(state)

    def _cancel_unread(self) -> float | None:
        """Cancel requests that exceed the read timeout; return the seconds until the next check, if any is needed."""
        remaining = []
        for state in self._active:
            seconds = state.events.full_seconds
            if seconds is not None and not state.cancelled:
                state.cancelled = seconds >= self._read_timeout
                remaining.append(self._read_timeout - seconds)
        return max(0.0, min(remaining)) if remaining else None

    def _step(self) -> None:
        """Run one step of each active request whose consumer keeps up."""
        with self._changed:
            ending, self._ending = self._ending, []
        batches: dict[StepEngine, list[RequestState]] = {}
        for state in self._active:
            if state.cancelled or state.timed_out:
                ending.append(state)
            elif not state.events.full:
                batches.setdefault(state.engine, []).append(state)
        wake_ups = WakeUps()
        for state in ending:
            self._deliver(state, _ending_of(state), wake_ups)
        for engine, states in batches.items():
            for state, result in zip(states, step_results(engine, states, self._active), strict=True):
                self._deliver(state, result, wake_ups)
        wake_ups.send()

    def _deliver(self, state: RequestState, result: StepResult, wake_ups: WakeUps) -> None:
        """Send the result of a step to the consumer of its request, and remove a request that has ended."""
        if result is None:
            return
        now = time.monotonic()
        if not isinstance(result, Exception) and result.token_id is not None:
            for share in state.shares:
                share.tokens += OUTPUT_WEIGHT
            if self._observer is not None:
                self._observer.on_token(state, now)
            state.last_token = now
        if isinstance(result, Exception) or result.finish_reason is not None:
            self._remove(state, now)
            if self._observer is not None:
                self._observer.on_end(state, now, result)
        state.events.put(result, wake_ups)

    def _remove(self, state: RequestState, now: float) -> None:
        state.engine.release(state)
        with self._changed:
            if state.started is not None:
                self._active.remove(state)
                for share in state.shares:
                    share.num_running -= 1
                self._ended_at.append(now)
            self._shares.leave(state.shares)
            del self._states[state.request.id]
            self._changed.notify_all()  # for `cancel_all`


def _limit(limit: int, *, newcomer: bool) -> int:
    """Return a limit, which is a quarter higher for a client that uses nothing of it."""
    return limit + limit // _NEWCOMER_SHARE if newcomer else limit


def _can_step(state: RequestState) -> bool:
    return state.cancelled or state.timed_out or not state.events.full


def _ending_of(state: RequestState) -> TokenEvent | Exception:
    """Return the last item for the consumer of a request that was cancelled or timed out."""
    if state.timed_out and not state.cancelled:
        assert state.request.timeout is not None
        in_queue = (time.monotonic() if state.started is None else state.started) - state.submitted
        return RequestTimeoutError(state.request.timeout, in_queue)
    if state.sequence is None:
        return TokenEvent(state.request.id, None, "", finish_reason="cancelled")
    return state.sequence.cancelled()


def step_results(
    engine: StepEngine, states: Sequence[RequestState], active: Sequence[RequestState]
) -> list[StepResult]:
    """Return the results of one step. A request that cannot begin fails alone.

    Args:
        engine: The engine that runs the requests.
        states: The requests that may take a step, the oldest first.
        active: All active requests of the worker. Their caches may be released.

    Returns:
        One result per request of `states`.
    """
    failed: dict[RequestState, Exception] = {}
    for state in states:
        if state.sequence is None:
            try:
                state.sequence = engine.begin(state)
            except Exception as error:
                failed[state] = error
    begun = [state for state in states if state not in failed]
    try:
        results: dict[RequestState, StepResult] = (
            dict(zip(begun, engine.step(begun, active), strict=True)) if begun else {}
        )
    except Exception as error:
        results = dict.fromkeys(begun, error)
    return [failed.get(state) or results[state] for state in states]
