"""Conversion of engine events to responses in OpenAI's format, for complete and for streamed responses."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from groundup.inference import TokenEvent
from groundup.serve.model import Job, ServedModel
from groundup.serve.schema import ChatBody

Json = dict[str, Any]


class Answer(ABC):
    """A response to a request. Call `chunk` for each event in order, or call `complete` once with all events.

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
        """Return the complete response. `outputs` contains the list of events of each choice."""
        for index, events in enumerate(outputs):
            for event in events:
                self._count(index, event)
        choices = [self._choice(index, events) for index, events in enumerate(self._selected(outputs))]
        return {**self._head, "object": self.kind, "choices": choices, "usage": self.usage}

    def opening(self) -> Iterator[Json]:
        """Yield the chunks that a stream sends before the first event."""
        for index in range(len(self._job.requests)):
            choice = self._opening_choice(index)
            if choice is not None:
                yield self._chunk([choice])

    def chunk(self, index: int, event: TokenEvent) -> Json | None:
        """Return the chunk for an event of a choice. Return None if the event adds nothing to the response."""
        self._count(index, event)
        choice = self._chunk_choice(index, event)
        return None if choice is None else self._chunk([choice])

    def closing(self) -> Iterator[Json]:
        """Yield the chunks that a stream sends after the last event."""
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


class ChatAnswer(Answer):
    """Response of the endpoint `/v1/chat/completions`.

    Args:
        model: Model that generates the response.
        job: Generation requests of the response, one per choice.
        body: Body of the request.
    """

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl"

    def __init__(self, model: ServedModel, job: Job, body: ChatBody) -> None:
        super().__init__(model, job, include_usage=body.include_usage)
        self._return_logprobs = body.logprobs

    def _choice(self, index: int, events: Sequence[TokenEvent]) -> Json:
        message = {"role": "assistant", "content": "".join(event.text for event in events), "refusal": None}
        reason = events[-1].finish_reason
        return {"index": index, "message": message, "logprobs": self._logprobs(events), "finish_reason": reason}

    def _opening_choice(self, index: int) -> Json | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _chunk_choice(self, index: int, event: TokenEvent) -> Json | None:
        logprobs = self._logprobs([event])
        if not (event.text or event.finish_reason or (logprobs and logprobs["content"])):
            return None
        delta = {"content": event.text} if event.text else {}
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": event.finish_reason}

    def _logprobs(self, events: Sequence[TokenEvent]) -> Json | None:
        if not self._return_logprobs:
            return None
        content = []
        for event in self._shown_tokens(events):
            assert event.token_id is not None and event.logprob is not None, "token events have both"
            top = [self._scored(token_id, logprob) for token_id, logprob in event.top_logprobs]
            content.append({**self._scored(event.token_id, event.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _shown_tokens(self, events: Sequence[TokenEvent]) -> list[TokenEvent]:
        """Return the events whose token is part of the text. Events of stop tokens are left out."""
        special = self._model.tokenizer.special_ids
        return [event for event in events if event.token_id is not None and event.token_id not in special]

    def _scored(self, token_id: int, logprob: float) -> Json:
        raw = self._model.tokenizer.token_bytes(token_id)
        return {"token": raw.decode("utf-8", errors="replace"), "logprob": logprob, "bytes": list(raw)}
