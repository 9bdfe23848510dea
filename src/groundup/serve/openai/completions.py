"""Conversion of engine events to responses of the endpoint `/v1/completions`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from groundup.inference import TokenEvent
from groundup.inference.request import TokenLogprob
from groundup.serve.models.model import Job, ServedModel
from groundup.serve.openai.answers import ChoicesAnswer, Json
from groundup.serve.openai.schema import CompletionBody
from groundup.tokenizer import StreamDecoder

_UTF8_CONTINUATION = re.compile(rb"[\x80-\xbf]").match  # a byte of a character that is not its first byte


class CompletionAnswer(ChoicesAnswer):
    """Response of the endpoint `/v1/completions`.

    Args:
        model: Model that generates the response.
        job: Generation requests of the response, `body.num_candidates` per prompt.
        body: Body of the request.
    """

    kind = "text_completion"
    chunk_kind = "text_completion"
    prefix = "cmpl"

    def __init__(self, model: ServedModel, job: Job, body: CompletionBody) -> None:
        super().__init__(model, job, include_usage=body.include_usage)
        self._body = body
        self._choices: dict[int, _Choice] = {}

    def _selected(self, outputs: Sequence[Sequence[TokenEvent]]) -> Sequence[Sequence[TokenEvent]]:
        """Return the `n` outputs of each prompt with the highest log-probability per token."""
        body = self._body
        if body.num_candidates == body.n:
            return outputs
        groups = (outputs[i : i + body.num_candidates] for i in range(0, len(outputs), body.num_candidates))
        return [events for group in groups for events in sorted(group, key=_mean_logprob, reverse=True)[: body.n]]

    def _choice(self, index: int, events: Sequence[TokenEvent]) -> Json:
        if index not in self._choices:
            prompt = self._job.requests[index // self._body.n * self._body.num_candidates].prompt
            assert isinstance(prompt, tuple), "the prompts of jobs are token IDs"
            self._choices[index] = _Choice(self._model, self._body, index, prompt)
        return self._choices[index].of(events)

    def _opening_choice(self, index: int) -> Json | None:
        return None

    def _chunk_choice(self, index: int, event: TokenEvent) -> Json | None:
        choice = self._choice(index, [event])
        logprobs = choice["logprobs"]
        return choice if choice["text"] or event.finish_reason or (logprobs and logprobs["tokens"]) else None


class _Choice:
    """The text and the log-probabilities of one choice. All events are converted together, or each by itself."""

    def __init__(self, model: ServedModel, body: CompletionBody, index: int, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer = model.tokenizer
        self._index = index
        self._reports_logprobs = body.logprobs is not None
        prompt = body.prompt[index // body.n]
        text = prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
        self._echo = text if body.echo else ""  # empty after the first conversion
        continues = not body.echo and prompt_ids[-1] not in tokenizer.special_ids
        self._decoder = StreamDecoder(tokenizer, continues=continues)
        self._offset = 0

    def of(self, events: Sequence[TokenEvent]) -> Json:
        """Return the choice, or the part of the choice that the events add."""
        text = self._echo + "".join(event.text for event in events)
        self._echo = ""
        logprobs = self._logprobs(events) if self._reports_logprobs else None
        reason = events[-1].finish_reason
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, events: Sequence[TokenEvent]) -> Json:
        """Return the log-probabilities of all tokens, including stop tokens and special tokens of the prompt.

        Clients such as lm-evaluation-harness expect one entry per token.
        """
        found: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in (each for event in events for each in _tokens(event)):
            found["tokens"].append(self._name(token.token_id))
            found["token_logprobs"].append(token.logprob)
            found["top_logprobs"].append(self._top(token))
            found["text_offset"].append(self._start_of(token.token_id))
        return found

    def _start_of(self, token_id: int) -> int:
        """Return the position in the text at which the next token starts."""
        if not _UTF8_CONTINUATION(self._tokenizer.token_bytes(token_id)):
            self._offset += len(self._decoder.flush())  # the last character stays incomplete
        start = self._offset
        self._offset += len(self._decoder.feed([token_id]))
        return start

    def _top(self, token: TokenLogprob) -> Json | None:
        if token.logprob is None:
            return None
        top: Json = {}
        for token_id, logprob in (*token.top_logprobs, (token.token_id, token.logprob)):
            top.setdefault(self._name(token_id), logprob)  # of tokens with the same name, the most likely one
        return top

    def _name(self, token_id: int) -> str:
        """Return the text of a token, or its bytes in OpenAI's notation if the token is only a part of a character."""
        raw = self._tokenizer.token_bytes(token_id)
        text = raw.decode("utf-8", errors="replace")
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw) if "�" in text else text


def _tokens(event: TokenEvent) -> list[TokenLogprob]:
    tokens = list(event.prompt_logprobs)
    if event.token_id is not None:
        tokens.append(TokenLogprob(event.token_id, event.logprob, event.top_logprobs))
    return tokens


def _mean_logprob(events: Sequence[TokenEvent]) -> float:
    logprobs = [event.logprob for event in events if event.logprob is not None]
    return sum(logprobs) / max(1, len(logprobs))
