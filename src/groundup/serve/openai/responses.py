"""Response of the endpoint `/v1/responses`, as one object or as a stream of typed events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import ClassVar

from groundup.inference import TokenEvent
from groundup.serve.models.model import Job, ServedModel
from groundup.serve.openai.answers import Answer, Json
from groundup.serve.openai.errors import ApiError
from groundup.serve.openai.response_schema import ResponseBody
from groundup.serve.openai.tool_parser import ArgumentsPiece, CallStart, Piece, TextPiece


class ResponseAnswer(Answer):
    """Response of the endpoint `/v1/responses`. Its output consists of at most one message, and of tool calls.

    Args:
        model: Model that generates the response.
        job: Generation request of the response.
        body: Body of the request.
    """

    is_typed: ClassVar[bool] = True

    def __init__(self, model: ServedModel, job: Job, body: ResponseBody) -> None:
        self._response = _new_response(model, body)
        self._prompt_tokens = job.prompt_tokens
        self._output_tokens = self._cached_tokens = 0
        self._parser = job.new_parser()
        self._output: list[Json] = []
        self._num_events = 0

    def complete(self, outputs: Sequence[Sequence[TokenEvent]]) -> Json:
        """See `Answer.complete`."""
        for event in outputs[0]:
            for _ in self.chunks(0, event):
                pass
        return self._response

    def opening(self) -> Iterator[Json]:
        """See `Answer.opening`."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response)

    def chunks(self, index: int, event: TokenEvent) -> Iterator[Json]:
        """See `Answer.chunks`."""
        self._output_tokens += event.token_id is not None
        self._cached_tokens = event.cached_tokens
        for piece in self._parser.parse(event):
            yield from self._piece(piece)
        if event.finish_reason is not None:
            yield from self._end(is_complete=event.finish_reason == "stop")

    def closing(self) -> Iterator[Json]:
        """See `Answer.closing`."""
        yield self._event(f"response.{self._response['status']}", response=self._response)

    def failure(self, error: ApiError) -> Json:
        """See `Answer.failure`."""
        code = "server_error" if error.status >= 500 else error.code
        self._response |= {"status": "failed", "error": {"code": code, "message": str(error)}}
        return self._event("response.failed", response=self._response)

    def _piece(self, piece: Piece) -> Iterator[Json]:
        """Add a piece to the output, and yield its events."""
        match piece:
            case TextPiece(text):
                if not self._output:
                    yield from self._start_message()
                self._output[-1]["content"][0]["text"] += text
                yield self._item_event("response.output_text.delta", content_index=0, delta=text, logprobs=[])
            case CallStart(id=call_id, name=name):
                yield from self._finish_item("completed")
                call = {"type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
                yield from self._start_item("fc", call)
            case ArgumentsPiece(text=text):
                self._output[-1]["arguments"] += text
                yield self._item_event("response.function_call_arguments.delta", delta=text)

    def _start_message(self) -> Iterator[Json]:
        yield from self._start_item("msg", {"type": "message", "role": "assistant", "content": []})
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._item_event("response.content_part.added", content_index=0, part=part)
        self._output[-1]["content"] = [part]

    def _start_item(self, prefix: str, item: Json) -> Iterator[Json]:
        self._output.append({"id": _new_id(prefix), "status": "in_progress", **item})
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=dict(self._output[-1]))

    def _finish_item(self, status: str) -> Iterator[Json]:
        """Yield the events that complete the last item of the output, if there is one."""
        if not self._output:
            return
        item = self._output[-1]
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            yield self._item_event("response.output_text.done", content_index=0, text=part["text"], logprobs=[])
            yield self._item_event("response.content_part.done", content_index=0, part=part)
        else:
            yield self._item_event(
                "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"]
            )
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _end(self, *, is_complete: bool) -> Iterator[Json]:
        status = "completed" if is_complete else "incomplete"
        if not self._output:
            yield from self._start_message()
        yield from self._finish_item(status)
        details = None if is_complete else {"reason": "max_output_tokens"}
        self._response |= {"status": status, "incomplete_details": details, "output": self._output}
        self._response["usage"] = {
            "input_tokens": self._prompt_tokens,
            "input_tokens_details": {"cached_tokens": self._cached_tokens},
            "output_tokens": self._output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._prompt_tokens + self._output_tokens,
        }

    def _item_event(self, kind: str, **content: object) -> Json:
        return self._event(kind, item_id=self._output[-1]["id"], output_index=len(self._output) - 1, **content)

    def _event(self, kind: str, **content: object) -> Json:
        self._num_events += 1
        return {"type": kind, "sequence_number": self._num_events - 1, **content}


def _new_response(model: ServedModel, body: ResponseBody) -> Json:
    """Return a response without output, with the parameters of the request."""
    given = body.model_dump(mode="json", include={"text", "tools"}, by_alias=True, exclude_unset=True)
    return {
        "id": _new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "model": model.name,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}} | given.get("text", {}),
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice.as_item,
        "tools": given.get("tools", []),
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
