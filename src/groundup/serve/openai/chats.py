"""Response of the endpoint `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.inference import TokenEvent
from groundup.serve.models.model import Job, ServedModel
from groundup.serve.openai.answers import ChoicesAnswer, Json
from groundup.serve.openai.chat_schema import ChatBody
from groundup.serve.openai.tool_parser import ArgumentsPiece, CallStart, Piece, TextPiece, ToolCallParser


class ChatAnswer(ChoicesAnswer):
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
        self._parsers = [job.new_parser() for _ in job.requests]

    def _choice(self, index: int, events: Sequence[TokenEvent]) -> Json:
        parser = self._parsers[index]
        text, calls = _merged([piece for event in events for piece in parser.parse(event)])
        message: Json = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = [
                {key: value for key, value in call.items() if key != "index"} for call in calls.values()
            ]
        reason = _finish_reason(events[-1], parser)
        return {"index": index, "message": message, "logprobs": self._logprobs(events), "finish_reason": reason}

    def _opening_choice(self, index: int) -> Json | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _chunk_choice(self, index: int, event: TokenEvent) -> Json | None:
        parser, logprobs = self._parsers[index], self._logprobs([event])
        text, calls = _merged(parser.parse(event))
        if not (text or calls or event.finish_reason or (logprobs and logprobs["content"])):
            return None
        delta: Json = {"content": text} if text else {}
        if calls:
            delta["tool_calls"] = list(calls.values())
        reason = _finish_reason(event, parser)
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

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


def _merged(pieces: Sequence[Piece]) -> tuple[str, dict[int, Json]]:
    """Return the text of pieces, and their tool calls by index. A call that started earlier has no ID and name."""
    text = ""
    calls: dict[int, Json] = {}
    for piece in pieces:
        match piece:
            case TextPiece(new):
                text += new
            case CallStart(index, call_id, name):
                function: Json = {"name": name, "arguments": ""}
                calls[index] = {"index": index, "id": call_id, "type": "function", "function": function}
            case ArgumentsPiece(index, new):
                call = calls.setdefault(index, {"index": index, "function": {"arguments": ""}})
                call["function"]["arguments"] += new
    return text, calls


def _finish_reason(event: TokenEvent, parser: ToolCallParser) -> str | None:
    return "tool_calls" if event.finish_reason == "stop" and parser.has_calls else event.finish_reason
