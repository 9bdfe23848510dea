"""Events of the engine in the forms of OpenAI's answers: whole, or chunk by chunk."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from groundup.inference import TokenEvent
from groundup.serve.model import Job, ServedModel
from groundup.serve.schema import ChatBody, CompletionBody

Json = dict[str, Any]


class Answer(ABC):
    """One call's answer. Call `chunk` for each event in its order, or `whole` once with all events.

    Args:
        model: who answers.
        job: what was asked of the engine.
        include_usage: whether a stream ends with the usage.
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

    def whole(self, outputs: Sequence[Sequence[TokenEvent]]) -> Json:
        """The answer in one piece; `outputs` holds the events of each choice."""
        for events in outputs:
            for event in events:
                self._count(event)
        choices = [self._choice(index, events) for index, events in enumerate(outputs)]
        return {**self._head, "object": self.kind, "choices": choices, "usage": self.usage}

    def opening(self) -> Iterator[Json]:
        """The chunks before the first event."""
        for index in range(len(self._job.requests)):
            choice = self._opening_choice(index)
            if choice is not None:
                yield self._chunk([choice])

    def chunk(self, index: int, event: TokenEvent) -> Json | None:
        """The chunk for one event of a choice; None where there is nothing to say yet."""
        self._count(event)
        choice = self._chunk_choice(index, event)
        return None if choice is None else self._chunk([choice])

    def closing(self) -> Iterator[Json]:
        """The chunks after the last event."""
        if self._include_usage:
            yield {**self._chunk([]), "usage": self.usage}

    @property
    def usage(self) -> Json:
        """Tokens read and drawn so far, the stop tokens included."""
        read, drawn = self._job.prompt_tokens, self._completion_tokens
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}

    @abstractmethod
    def _choice(self, index: int, events: Sequence[TokenEvent]) -> Json: ...

    @abstractmethod
    def _opening_choice(self, index: int) -> Json | None: ...

    @abstractmethod
    def _chunk_choice(self, index: int, event: TokenEvent) -> Json | None: ...

    def _chunk(self, choices: list[Json]) -> Json:
        usage = {"usage": None} if self._include_usage else {}
        return {**self._head, "object": self.chunk_kind, "choices": choices, **usage}

    def _count(self, event: TokenEvent) -> None:
        self._completion_tokens += event.token_id is not None

    def _shown_tokens(self, events: Sequence[TokenEvent]) -> list[TokenEvent]:
        """The events whose tokens are part of the text: not a stop token."""
        special = self._model.tokenizer.special_ids
        return [event for event in events if event.token_id is not None and event.token_id not in special]

    def _token(self, token_id: int) -> tuple[str, bytes]:
        raw = self._model.tokenizer.token_bytes(token_id)
        return raw.decode("utf-8", errors="replace"), raw


class ChatAnswer(Answer):
    """The answer of `/v1/chat/completions`."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl"

    def __init__(self, model: ServedModel, job: Job, body: ChatBody) -> None:
        super().__init__(model, job, include_usage=body.include_usage)
        self._logprobs_wanted = body.logprobs

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
        if not self._logprobs_wanted:
            return None
        content = []
        for event in self._shown_tokens(events):
            assert event.token_id is not None and event.logprob is not None, "events of tokens have both"
            top = [self._scored(token_id, logprob) for token_id, logprob in event.top_logprobs]
            content.append({**self._scored(event.token_id, event.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _scored(self, token_id: int, logprob: float) -> Json:
        text, raw = self._token(token_id)
        return {"token": text, "logprob": logprob, "bytes": list(raw)}


class CompletionAnswer(Answer):
    """The answer of `/v1/completions`."""

    kind = "text_completion"
    chunk_kind = "text_completion"
    prefix = "cmpl"

    def __init__(self, model: ServedModel, job: Job, body: CompletionBody) -> None:
        super().__init__(model, job, include_usage=body.include_usage)
        self._logprobs_wanted = body.logprobs is not None
        self._echoed = [self._prompt_text(prompt) if body.echo else "" for prompt in body.prompt for _ in range(body.n)]
        self._offsets = [0] * len(job.requests)

    def _choice(self, index: int, events: Sequence[TokenEvent]) -> Json:
        text = self._echoed[index] + "".join(event.text for event in events)
        return self._text_choice(index, text, events)

    def _opening_choice(self, index: int) -> Json | None:
        return self._text_choice(index, self._echoed[index], []) if self._echoed[index] else None

    def _chunk_choice(self, index: int, event: TokenEvent) -> Json | None:
        choice = self._text_choice(index, event.text, [event])
        logprobs = choice["logprobs"]
        if event.text or event.finish_reason or (logprobs and logprobs["tokens"]):
            return choice
        return None

    def _text_choice(self, index: int, text: str, events: Sequence[TokenEvent]) -> Json:
        reason = events[-1].finish_reason if events else None
        return {"index": index, "text": text, "logprobs": self._logprobs(index, events), "finish_reason": reason}

    def _logprobs(self, index: int, events: Sequence[TokenEvent]) -> Json | None:
        if not self._logprobs_wanted:
            return None
        found: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for event in self._shown_tokens(events):
            assert event.token_id is not None, "shown tokens have an id"
            name = self._name(event.token_id)
            top = {self._name(token_id): logprob for token_id, logprob in event.top_logprobs}
            found["tokens"].append(name)
            found["token_logprobs"].append(event.logprob)
            found["top_logprobs"].append({**top, name: event.logprob})
            found["text_offset"].append(self._offsets[index])
            self._offsets[index] += len(self._token(event.token_id)[0])
        return found

    def _name(self, token_id: int) -> str:
        """A token's text; of part of a character its bytes, as OpenAI writes them, so that no two are alike."""
        text, raw = self._token(token_id)
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw) if "�" in text else text

    def _prompt_text(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self._model.tokenizer.decode(prompt)
