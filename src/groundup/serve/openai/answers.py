"""Conversion of engine events to responses in OpenAI's format, for complete and for streamed responses."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from groundup.inference import TokenEvent
from groundup.serve.models.model import Job, ServedModel
from groundup.serve.openai.errors import ApiError

Json = dict[str, Any]


class Answer(ABC):
    """A response to a request. Call `chunks` for each event in order, or call `complete` once with all events.

    Attributes:
        is_typed: Whether the chunks have the key "type", which names the events of a stream.
    """

    is_typed: ClassVar[bool] = False

    @abstractmethod
    def complete(self, outputs: Sequence[Sequence[TokenEvent]]) -> Json:
        """Return the complete response. `outputs` contains the list of events of each request of the job."""

    @abstractmethod
    def opening(self) -> Iterator[Json]:
        """Yield the chunks that a stream sends before the first event."""

    @abstractmethod
    def chunks(self, index: int, event: TokenEvent) -> Iterator[Json]:
        """Yield the chunks for an event of the request with the given index. There may be none."""

    @abstractmethod
    def closing(self) -> Iterator[Json]:
        """Yield the chunks that a stream sends after the last event."""

    def failure(self, error: ApiError) -> Json:
        """Return the chunk that reports an error in a stream. No other chunks follow."""
        return error.body


class ChoicesAnswer(Answer):
    """A response with one choice for each request of the job.

    Args:
        model: Model that generates the response.
        job: Generation requests of the response, one per choice.
        include_usage: Whether a streamed response ends with the token counts ("usage").
    """

    kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, model: ServedModel, job: Job, *, include_usage: bool) -> None:
        self._model = model
        self._job = job
        self._include_usage = include_usage
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model.name}
        self._completion_tokens = 0
        self._cached_tokens: dict[int, int] = {}  # by index of the first choice of each prompt

    def complete(self, outputs: Sequence[Sequence[TokenEvent]]) -> Json:
        """See `Answer.complete`."""
        for index, events in enumerate(outputs):
            for event in events:
                self._count(index, event)
        choices = [self._choice(index, events) for index, events in enumerate(self._selected(outputs))]
        return {**self._head, "object": self.kind, "choices": choices, "usage": self.usage}

    def opening(self) -> Iterator[Json]:
        """See `Answer.opening`."""
        for index in range(len(self._job.requests)):
            choice = self._opening_choice(index)
            if choice is not None:
                yield self._chunk([choice])

    def chunks(self, index: int, event: TokenEvent) -> Iterator[Json]:
        """See `Answer.chunks`."""
        self._count(index, event)
        choice = self._chunk_choice(index, event)
        if choice is not None:
            yield self._chunk([choice])

    def closing(self) -> Iterator[Json]:
        """See `Answer.closing`."""
        if self._include_usage:
            yield {**self._chunk([]), "usage": self.usage}

    @property
    def usage(self) -> Json:
        """Number of prompt tokens and of tokens generated so far. Stop tokens are counted."""
        prompt, completion = self._job.prompt_tokens, self._completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(self._cached_tokens.values())},
        }

    def _selected(self, outputs: Sequence[Sequence[TokenEvent]]) -> Sequence[Sequence[TokenEvent]]:
        """Return the outputs that become choices of a complete response."""
        return outputs

    @abstractmethod
    def _choice(self, index: int, events: Sequence[TokenEvent]) -> Json: ...

    @abstractmethod
    def _opening_choice(self, index: int) -> Json | None: ...

    @abstractmethod
    def _chunk_choice(self, index: int, event: TokenEvent) -> Json | None: ...

    def _chunk(self, choices: list[Json]) -> Json:
        usage = {"usage": None} if self._include_usage else {}
        return {**self._head, "object": self.chunk_kind, "choices": choices, **usage}

    def _count(self, index: int, event: TokenEvent) -> None:
        self._completion_tokens += event.token_id is not None
        if index % self._job.num_choices == 0:  # other choices find the prompt of the first one
            self._cached_tokens[index] = event.cached_tokens
