"""The inference engine: concurrent generation requests for one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from groundup.core.errors import ConfigError, ResourceError
from groundup.core.types import InferenceDtype
from groundup.inference.blocks import BlockPool, OutOfBlocksError
from groundup.inference.event_queue import EventQueue, EventStream
from groundup.inference.request import Completion, GenerationRequest, TokenEvent
from groundup.inference.runner import Runner, SequenceStep, TorchRunner, make_runner
from groundup.inference.sequence import GeneratedSequence, prompt_ids
from groundup.inference.worker import RequestState, StepResult, Worker, step_results
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

if TYPE_CHECKING:
    from groundup.hub.loading import OpenedModel


class Engine:
    """An engine that generates text for concurrent requests. Use it as a context manager, or call `close`.

    The tokens of a request do not depend on other requests. An error in one request is raised to its consumer only.

    Args:
        model: The language model.
        tokenizer: The model's tokenizer.
        runner: Computes the forward passes; see `make_runner`. Default: PyTorch, in the model's device and dtype.
        stop_ids: Stop tokens for requests without their own. Default: the tokenizer's EOS.
        max_active: Maximum number of requests that run concurrently.
        max_waiting: Maximum number of queued requests.
        read_timeout: Seconds after which a request is cancelled if its 256 buffered events are not read.
        worker: A worker that engines share, whose limits then apply, and which its creator closes. Default: a new one.

    Raises:
        ConfigError: The tokenizer has more ids than the model.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        runner: Runner | None = None,
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
        self._runner = runner or TorchRunner(model)
        # Extra embedding rows are padding. Extra token ids belong to other modalities, such as images.
        self.vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
        self._stop_ids = frozenset((tokenizer.eos_id,) if stop_ids is None else stop_ids)
        self._worker = worker or Worker(max_active, max_waiting, read_timeout)
        self._owns_worker = worker is None
        self._closed = False
        self._shortest_first = False

    @classmethod
    def of(
        cls,
        opened: OpenedModel,
        dtype: InferenceDtype = "auto",
        *,
        pool: BlockPool | None = None,
        identity: bytes | None = None,
        worker: Worker | None = None,
    ) -> Self:
        """Return an engine for a model that was loaded from its directory.

        Args:
            opened: The model with its tokenizer and stop tokens.
            dtype: Weight format; see `make_runner`.
            pool: See `make_runner`.
            identity: See `make_runner`.
            worker: The worker of another engine. Default: a new worker.

        Raises:
            ConfigError: The tokenizer has more ids than the model.
            ResourceError: The weight format needs the compiled kernels, and they cannot compute this model.
        """
        runner = make_runner(opened.model, dtype, pool=pool, identity=identity)
        return cls(opened.model, opened.tokenizer, runner=runner, stop_ids=opened.stop_ids, worker=worker)

    def share_worker(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        stop_ids: tuple[int, ...] | None = None,
        identity: bytes | None = None,
    ) -> Engine:
        """Return an engine for another model that shares this engine's thread, request limits and common weights.

        It cannot run requests after the thread was stopped, which closing this engine does unless the engine was
        created with a worker.

        Args:
            model: The other model.
            tokenizer: The other model's tokenizer.
            stop_ids: Stop tokens for requests without their own. Default: the tokenizer's EOS.
            identity: See `make_runner`.

        Returns:
            The new engine.

        Raises:
            ConfigError: The tokenizer has more ids than the model.
        """
        runner = self._runner.share(model, identity)
        return Engine(model, tokenizer, runner=runner, stop_ids=stop_ids, worker=self._worker)

    def submit(self, request: GenerationRequest) -> EventStream:
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

    def stream(self, request: GenerationRequest) -> EventStream:
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
        state = self._enqueue(request)
        events = []
        for event in self._events(state):
            events.append(event)
            if on_text is not None and event.text:
                on_text(event.text)
        return Completion.of(events, prompt_tokens=len(state.ids))

    def complete_all(
        self,
        requests: Sequence[GenerationRequest],
        *,
        max_active: int = 32,
        advance: Callable[[float], object] = lambda _: None,
    ) -> list[Completion]:
        """Run requests to their end and return the completions. The tokens are the same as with `complete`.

        The steps run in the calling thread and without a queue, so no other request may run at the same time. The order
        of the steps depends only on the requests. If a request fails, its error is raised and all requests are dropped.

        Args:
            requests: The generation requests.
            max_active: Maximum number of requests that run concurrently, if memory allows.
            advance: Called with the number of completions since the last call.

        Returns:
            One completion per request, in the same order.

        Raises:
            ConfigError: A prompt does not fit into the context.
        """
        # The event queues stay empty, because the events are collected here.
        states = [
            RequestState(request, self._prompt_ids(request), self, EventQueue(1, lambda: None)) for request in requests
        ]
        # Longest first: the last requests to finish are then short ones, and an out-of-memory error occurs early.
        waiting = sorted(states, key=lambda state: len(state.ids))
        active: list[RequestState] = []
        events: dict[RequestState, list[TokenEvent]] = {state: [] for state in states}
        done: dict[RequestState, Completion] = {}
        max_active = min(max_active, self._runner.max_sequences(max(map(self._max_length, states), default=1)))
        try:
            while waiting or active:
                while waiting and len(active) < max_active:
                    active.append(waiting.pop())
                with torch.inference_mode():
                    results = step_results(self, active, active)
                for state, result in zip(list(active), results, strict=True):
                    if isinstance(result, Exception):
                        raise result
                    if result is None:
                        continue
                    events[state].append(result)
                    if result.finish_reason is not None:
                        active.remove(state)
                        self.release(state)
                        done[state] = Completion.of(events.pop(state), prompt_tokens=len(state.ids))
                        advance(1)
        finally:
            for state in active:
                self.release(state)
        return [done[state] for state in states]

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
        """Whether a request of this engine is waiting or running."""
        return self._worker.has_requests(self)

    @property
    def closed(self) -> bool:
        """Whether the engine or its worker was closed."""
        return self._closed or self._worker.closed

    @property
    def runner(self) -> Runner:
        """The runner that computes the forward passes."""
        return self._runner

    @property
    def packed_bytes(self) -> int:
        """Bytes of weights that the compiled kernels hold in addition to the model."""
        return self._runner.nbytes

    def close(self) -> None:
        """Cancel all requests of this engine, wait until they have ended, and stop its own thread."""
        self._closed = True
        if self._owns_worker:
            self._worker.close()
        else:
            self._worker.cancel_all(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, state: RequestState) -> GeneratedSequence:
        """Return a new sequence for a request that becomes active. For the worker only."""
        context_length = self.model.config.context_length
        return GeneratedSequence(
            state.request, state.ids, self.tokenizer, context_length, self.vocab_size, self._stop_ids
        )

    def step(self, states: Sequence[RequestState], active: Sequence[RequestState]) -> list[StepResult]:
        """Compute the next tokens of active requests. For the worker only.

        Every sequence in decode gets its next token. The remaining tokens of the forward pass are prompt tokens. If the
        KV cache is full, the newest requests are preempted and computed again later.

        Args:
            states: The requests, the oldest first.
            active: The active requests of all engines of the worker, the oldest first.

        Returns:
            One result per request, None if it got no token.
        """
        steps = self._schedule(states, active)
        outputs = dict(zip(steps, self._runner.forward(list(steps.values())), strict=True))
        return [self._result(state, outputs.get(state)) for state in states]

    def _result(self, state: RequestState, output: Tensor | Exception | None) -> StepResult:
        """Return the result of a step for one request, given the output of the forward pass."""
        sequence = state.sequence
        assert sequence is not None
        try:
            if isinstance(output, Tensor):
                return sequence.accept(output)
            if output is None and not sequence.samples and not _num_pending(state):
                return sequence.finish()
        except Exception as error:
            return error
        return output

    def release(self, state: RequestState) -> None:
        """Free the KV cache of a request. For the worker only."""
        if state.cache is not None:
            self._runner.close(state.cache)
            state.cache = None

    def _schedule(
        self, states: Sequence[RequestState], active: Sequence[RequestState]
    ) -> dict[RequestState, SequenceStep]:
        """Select the tokens that the next forward pass computes."""
        for state in states:
            if state.cache is None:
                assert state.sequence is not None
                # The blocks of embeddings stay private: many documents would displace the prefixes of chats.
                state.cache = self._runner.open(
                    state.sequence.reusable_ids,
                    state.sequence.max_length,
                    shared=not state.request.embedding,
                )
        counts = self._count_new_tokens(states, active)
        steps: dict[RequestState, SequenceStep] = {}
        for state in states:
            if state.cache is None or state not in counts:  # preempted by an older request, or not scheduled
                continue
            sequence = state.sequence
            assert sequence is not None
            ids, end = sequence.ids, state.cache.length + counts[state]
            if self._reserve(state, end, active):
                scored = end == len(ids) and sequence.samples
                steps[state] = SequenceStep(state.cache, ids[:end], scored, sequence.reader)
                sequence.note_computed(counts[state])
        return steps

    def _count_new_tokens(
        self, states: Sequence[RequestState], active: Sequence[RequestState]
    ) -> dict[RequestState, int]:
        """Return the number of tokens that the next forward pass computes for each request.

        The prompt tokens of a pass are limited. Every second pass prefers the client that has received the least. The
        other passes prefer short prompts, which would otherwise wait for all long prompts of the same client.
        """
        pending = {state: _num_pending(state) for state in states}
        counts = {state: 1 for state, count in pending.items() if count == 1}
        shared = any(_num_pending(state) == 1 and not state.events.full for state in active)
        left = self._runner.prefill_tokens(0, shared=shared)
        prefilling = [state for state in states if state not in counts]
        self._shortest_first = not self._shortest_first
        if self._shortest_first:
            prefilling.sort(key=pending.__getitem__)
        else:
            prefilling.sort(key=lambda state: state.client_tokens)
        begun: set[bytes] = set()  # keys of blocks that this pass computes
        for state in prefilling:
            if left <= 0:
                break
            assert state.cache is not None and state.sequence is not None
            key = self._runner.extend(state.cache, state.sequence.reusable_ids)
            if key in begun:  # another request with the same prompt computes the block
                continue
            if key is not None:
                begun.add(key)
            limit = self._runner.prefill_tokens(state.cache.length, shared=shared)
            counts[state] = min(_num_pending(state), limit)
            left -= counts[state]
        return counts

    def _reserve(self, state: RequestState, length: int, active: Sequence[RequestState]) -> bool:
        """Reserve memory for `length` tokens of a request, and preempt newer requests if needed; return success."""
        assert state.cache is not None
        while True:
            try:
                self._runner.reserve(state.cache, length)
                return True
            except OutOfBlocksError:
                newer = active[active.index(state) + 1 :]
                victim = next((each for each in reversed(newer) if each.cache is not None), state)
                victim.engine.release(victim)
                if victim is state:
                    return False

    def _enqueue(self, request: GenerationRequest) -> RequestState:
        if self._closed:
            raise ResourceError(f"request {request.id}", rule="the engine is closed", fix="Create a new Engine.")
        return self._worker.enqueue(request, self._prompt_ids(request), self)

    def _prompt_ids(self, request: GenerationRequest) -> tuple[int, ...]:
        context_length = self.model.config.context_length
        return prompt_ids(request, self.tokenizer, vocab_size=self.vocab_size, context_length=context_length)

    def _max_length(self, state: RequestState) -> int:
        """Return the maximum number of tokens of a request's prompt and output."""
        context_length = self.model.config.context_length
        return min(context_length, len(state.ids) + (state.request.max_tokens or context_length))

    def _events(self, state: RequestState) -> EventStream:
        return EventStream(state.events, partial(self._worker.release, state))


def _num_pending(state: RequestState) -> int:
    """Return the number of tokens of a request that the KV cache does not hold, 0 if it has not begun."""
    if state.sequence is None:
        return 0
    return len(state.sequence.ids) - (0 if state.cache is None else state.cache.length)
