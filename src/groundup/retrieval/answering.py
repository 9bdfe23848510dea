"""Answers from an index: retrieval, reading by a language model, support by the passages, and refusal."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from groundup.core.errors import ConfigError, ResourceError
from groundup.core.types import Message
from groundup.retrieval.evidence_model import ScoredSentence, scored_sentences
from groundup.retrieval.index import Index, Passage
from groundup.retrieval.support import readable, supporting_sentence

if TYPE_CHECKING:
    from groundup.inference import Completion, Engine, GenerationRequest
    from groundup.inference.event_queue import EventStream
    from groundup.inference.prompting import PromptFormat

PROMPT = "{passage}\n\nAnswer in the words of this text, or with unknown.\n{question}"
"""The prompt of a reader. The recipe `answer-from-passages` fine-tunes with the same prompt."""
UNKNOWN = "unknown"
REFUSAL = "The documents do not answer this question."

# Thresholds: see docs/documents.md for the questions on which they were chosen.
MIN_COVERAGE = 0.4  # minimum fraction of the question's words in a passage that is read
MIN_QUOTE_PROBABILITY = 0.36  # minimum of `ScoredSentence.probability` of a sentence that is quoted
MIN_ANSWER_PROBABILITY = 0.15  # minimum of `ScoredSentence.probability` of the sentence that supports an answer
MAX_QUESTION_CHARACTERS = 2_000
_ANSWER_FRACTION = 4  # an answer gets at most a quarter of the context
# The whole answer is compared: "the Tomb of the Unknown Soldier" is no refusal.
_REFUSAL = re.compile(
    r"""(?:sorry[,.]?\s+)?(?:
        (?:the\s+answer\s+is\s+)?unknown | n/?a | i\s+(?:do\s+not|don['’]t)\s+know
        | (?:(?:the|this)\s+)?(?:(?:answer|information|it)\s+)?(?:(?:is|was)\s+)?not\s+
            (?:found|mentioned|given|stated|specified|provided|in\s+(?:the|this)\s+(?:text|passage|document|context)s?)
            (?:\s+(?:in|by)\s+(?:the|this)\s+\w+)?
        | (?:(?:the|this)\s+)?(?:text|passage|document|context)s?\s+do(?:es)?(?:\s+not|n['’]t)\s+
            (?:contain|mention|say|state|answer|provide)\b.*
        | (?:i\s+)?can(?:not|['’]t)\s+answer\b.*
    )[.!\s]*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote that supports an answer.

    Attributes:
        number: Number in the answer, from 1.
        origin: File of the document, and place inside it.
        title: Title of the document, or "".
        url: URL of the document, or "".
        page: Page on which the quote starts, or None if the format has no pages.
        document: Number of the document in the index.
        start: Offset of the quote in the text of the document, in characters.
        end: Offset after the quote.
        quote: The quote.
        document_id: `IndexedDocument.id` of the document. Its number may change when the index is updated.
    """

    number: int
    origin: str
    title: str
    url: str
    page: int | None
    document: int
    start: int
    end: int
    quote: str
    document_id: str = ""

    @property
    def place(self) -> str:
        """The file and, if it is known, the page."""
        return self.origin if self.page is None else f"{self.origin}, page {self.page}"


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer with its citations, or a refusal.

    Attributes:
        question: The question.
        text: The answer with the numbers of its citations, or the text of a refusal.
        kind: "answer" if a model read it in a passage, "quote" if it is a sentence of a passage, "refusal" otherwise.
        reason: Reason for a refusal, otherwise "".
        citations: Quotes that support the answer.
        passages: Passages that were found, with the best passage first.
        search_seconds: Time of the search.
        seconds: Time of the search and of the model.
        memory_bytes: Peak memory of the process; 0 on Windows.
        prompt_tokens: Number of tokens in the prompts.
        completion_tokens: Number of generated tokens.
    """

    question: str
    text: str
    kind: str
    reason: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    search_seconds: float
    seconds: float
    memory_bytes: int
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True, eq=False)
class Reader:
    """A language model that reads passages to answer one question.

    Attributes:
        engine: Inference engine of the model. It may run other requests at the same time.
        format: Prompt format that the model expects.
        max_tokens: Maximum number of tokens of an answer, which also is at most a quarter of the context.
        client: Client that asks; see `GenerationRequest`.
        timeout: Number of seconds after which reading fails, or None for no limit.
    """

    engine: Engine
    format: PromptFormat
    max_tokens: int = 64
    client: tuple[str, ...] = ()
    timeout: float | None = None
    _ids: tuple[str, ...] = ()
    _cancelled: bool = False

    def read(self, question: str, passages: Sequence[str]) -> list[Completion]:
        """Return the answer from each passage.

        The passages are read separately, so that the text of one document cannot change what the model reads in
        another.

        Args:
            question: The question.
            passages: Texts of the passages, from `readable`.

        Raises:
            ConfigError: The question does not fit into the context.
            ResourceError: Too many requests are waiting, or reading was cancelled or exceeded its timeout.
        """
        from groundup.inference import Completion

        requests = [self._request(question, passage) for passage in passages]
        self._ids = tuple(request.id for request in requests)
        streams: list[EventStream] = []
        try:
            for request in requests:
                self._require_not_cancelled()
                streams.append(self.engine.stream(request))
            done = [
                Completion.of(list(stream), prompt_tokens=len(request.prompt))
                for stream, request in zip(streams, requests, strict=True)
            ]
        finally:
            for stream in streams:
                stream.close()
        self._cancelled |= any(each.finish_reason == "cancelled" for each in done)  # perhaps the engine was closed
        self._require_not_cancelled()
        return done

    def cancel(self) -> None:
        """Stop reading, so that `read` raises a ResourceError. Another thread calls this method."""
        self._cancelled = True
        for request_id in self._ids:
            self.engine.cancel(request_id)

    def _require_not_cancelled(self) -> None:
        if self._cancelled:
            raise ResourceError("cancelled", fix="Ask again.")

    def _request(self, question: str, passage: str) -> GenerationRequest:
        context = self.engine.model.config.context_length
        request = reader_request(self.format, question, passage, context_length=context, max_tokens=self.max_tokens)
        return replace(request, client=self.client, timeout=self.timeout)


def reader_request(
    format: PromptFormat, question: str, passage: str, *, context_length: int, max_tokens: int
) -> GenerationRequest:
    """Return the request with which a reader answers a question. A passage that is too long is truncated.

    Args:
        format: Prompt format that the model expects.
        question: The question.
        passage: Text of the passage, from `readable`.
        context_length: Context length of the model in tokens.
        max_tokens: Maximum number of tokens of the answer, which also is at most a quarter of the context.

    Raises:
        ConfigError: The question does not fit into the context.
    """
    from groundup.inference.prompting import greedy_request

    max_tokens = min(max_tokens, max(context_length // _ANSWER_FRACTION, 1))
    words = passage.split(" ")
    while True:
        text = PROMPT.format(passage=" ".join(words), question=" ".join(question.split()))
        request = greedy_request(format, [Message("user", text)], max_tokens)
        excess = len(request.prompt) + max_tokens - context_length
        if excess <= 0:
            return request
        if not words:
            raise ConfigError(
                f"the question has {len(request.prompt):,} tokens with its prompt",
                rule=f"the context has {context_length:,} tokens",
                fix="Ask a shorter question, or use a model with a longer context.",
            )
        del words[-max(excess // 2, 1) :]


@dataclass(slots=True)
class _Draft:
    """What was found before an answer is composed."""

    passages: tuple[Passage, ...]
    started: float
    searched: float
    done: list[Completion] = field(default_factory=list)


def answer_question(index: Index, question: str, reader: Reader | None = None, *, passages: int = 5) -> CitedAnswer:
    """Answer a question from the passages of an index.

    The reader answers from each passage that contains enough of the question's words. An answer is kept only if its
    passage supports it (see `supporting_sentence`). If no answer is kept, or without a reader, the best sentence is
    quoted if the evidence model gives it a sufficient probability. Otherwise the question is refused.

    Args:
        index: The index.
        question: The question.
        reader: The language model, or None to quote sentences.
        passages: Number of passages to search for.

    Raises:
        ConfigError: The question has no words, is too long, or does not fit into the context of the model.
        ResourceError: Too many requests are waiting, or reading was cancelled.
    """
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise ConfigError(
            f"the question has {len(question):,} characters",
            rule=f"the maximum is {MAX_QUESTION_CHARACTERS:,}",
            fix="Ask a shorter question.",
        )
    started = time.perf_counter()
    found = tuple(index.search(question, passages))
    draft = _Draft(found, started, time.perf_counter())
    if all(passage.coverage < MIN_COVERAGE for passage in found):
        return _answer(index, question, draft, reason="no passage contains enough of the question's words")
    sentences = list(scored_sentences(index, question, found))
    if reader is not None:
        read = [passage for passage in found if passage.coverage >= MIN_COVERAGE and readable(passage)]
        draft.done = reader.read(question, [readable(passage) for passage in read])
        text, evidence = _best_answer(question, sentences, read, draft.done)
        if evidence is not None:
            return _answer(index, question, draft, text, evidence)
        if draft.done and all(_refuses(done.text) for done in draft.done):
            return _answer(index, question, draft, reason="the model found no answer in the passages")
    quotes = [each for each in sentences if not each.is_heading]
    best = max(quotes, key=lambda each: each.sentence_score, default=None)
    if best is not None and best.probability >= MIN_QUOTE_PROBABILITY:
        return _answer(index, question, draft, "", best)
    reason = "no sentence is likely to answer it" if reader is None else "no passage supports the model's answer"
    return _answer(index, question, draft, reason=reason)


def _best_answer(
    question: str, sentences: Sequence[ScoredSentence], passages: Sequence[Passage], done: Sequence[Completion]
) -> tuple[str, ScoredSentence | None]:
    """Return the supported answer with the highest probability per token times the probability of its evidence."""
    best: tuple[float, str, ScoredSentence] | None = None
    for passage, completion in zip(passages, done, strict=True):
        text = _cleaned(completion.text)
        if not text or _refuses(text):
            continue
        evidence = supporting_sentence(question, text, [each for each in sentences if each.passage is passage])
        if evidence is None or evidence.probability < MIN_ANSWER_PROBABILITY:
            continue
        probability = math.exp(sum(completion.logprobs) / max(len(completion.logprobs), 1))
        score = probability * evidence.probability
        if best is None or score > best[0]:
            best = (score, text, evidence)
    return ("", None) if best is None else (best[1], best[2])


def _cleaned(text: str) -> str:
    return " ".join(text.split()).strip("\"'“” ")


def _refuses(text: str) -> bool:
    return _REFUSAL.fullmatch(text.strip()) is not None


def _answer(
    index: Index,
    question: str,
    draft: _Draft,
    text: str = "",
    evidence: ScoredSentence | None = None,
    *,
    reason: str = "",
) -> CitedAnswer:
    kind = "refusal" if evidence is None else "answer" if text else "quote"
    citations: tuple[Citation, ...] = ()
    if evidence is not None:
        at, page = evidence.passage, index.documents[evidence.passage.document].page(evidence.start)
        place = (at.origin, at.title, at.url, page, at.document, evidence.start, evidence.end)
        citations = (Citation(1, *place, evidence.text, at.document_id),)
        text = f"{text or ' '.join(evidence.text.split())} [1]"
    return CitedAnswer(
        question=question,
        text=text or REFUSAL,
        kind=kind,
        reason=reason,
        citations=citations,
        passages=draft.passages,
        search_seconds=round(draft.searched - draft.started, 4),
        seconds=round(time.perf_counter() - draft.started, 4),
        memory_bytes=_peak_memory(),
        prompt_tokens=sum(done.prompt_tokens for done in draft.done),
        completion_tokens=sum(len(done.token_ids) for done in draft.done),
    )


def _peak_memory() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
