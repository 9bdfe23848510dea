"""Writers of questions and answers: a language model of groundup, or a server with an OpenAI-compatible API."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from groundup.core.console import Console
from groundup.core.errors import ConfigError, FormatError, ResourceError
from groundup.core.redact import HIDDEN, redacted
from groundup.core.types import InferenceDtype, Message
from groundup.corpus.fetching.network import Network, retry
from groundup.data.held_out import fine_tuning_record
from groundup.retrieval.answering import PROMPT, reader_request
from groundup.retrieval.examples.candidates import AnswerCandidate, answer_candidates

if TYPE_CHECKING:
    from groundup.inference import Engine, GenerationRequest
    from groundup.inference.prompting import PromptFormat

MODEL_PROMPT = "{passage}\n\nWrite a question to this text that has this answer.\n{answer}"
"""Prompt of a model of groundup. A small model writes better questions to a given answer in a short text."""
SHOTS = (
    ("The Golden Gate Bridge opened on 27 May 1937 after four years of work.", "27 May 1937",
     "When did the Golden Gate Bridge open?"),
    ("Each passenger may check two bags of up to 23 kilograms.", "23 kilograms",
     "What is the maximum weight of a checked bag?"),
    ("The bridge was designed by Joseph Strauss, who had built many bridges before.", "Joseph Strauss",
     "Who designed the bridge?"),
    ("After the war, the family moved to Lyon, where her father opened a bakery.", "Lyon",
     "Where did the family move after the war?"),
)  # fmt: skip
"""Examples, as text, answer and question, for a model that was not fine-tuned with `MODEL_PROMPT`."""
SERVER_PROMPT = """{passage}

Write {count} questions that this text answers. Each question must be clear to a reader who does not have the text.
Copy each answer, at most eight words, from the text. Write one line for each question: question | answer"""

_QUESTION_TOKENS, _ANSWER_TOKENS = 48, 24
_LINE_TOKENS = 80  # maximum number of tokens of a question with its answer
_SERVER_SECONDS = 300.0
_OPENAI = "https://api.openai.com"
_OPENAI_KEY = "OPENAI_API_KEY"
_REJECTED = (400, 413, 422)  # HTTP statuses of a prompt that is too long or that a content filter refuses
_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])?\s*(?:Q(?:uestion)?\s*:)?\s*", re.IGNORECASE)
_ANSWER = re.compile(r"^A(?:nswer)?\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WriterInput:
    """A passage to write questions to.

    Attributes:
        text: The passage in one line, from `readable`.
        language: ISO 639 code of its language.
    """

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer."""

    question: str
    answer: str


class Answerer(Protocol):
    """Interface of a reader, which answers questions."""

    @property
    def batch_size(self) -> int:
        """Number of questions to answer, or of passages to write questions to, at the same time."""
        ...

    def answer(self, questions: Sequence[tuple[str, str]]) -> list[str]:
        """Return the answers to questions, each given after its passage, with the prompt of a reader."""
        ...


class Writer(Answerer, Protocol):
    """Interface of a writer, which can also read."""

    def write(self, sources: Sequence[WriterInput], count: int) -> Sequence[list[Pair] | ConfigError]:
        """Return at most `count` unverified pairs for each passage, or the error with which it was rejected."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ModelWriter:
    """A writer that gives a language model names, numbers and dates as answers. It implements `Writer`.

    The model gets the sentence with the answer, and the sentence before it.

    Attributes:
        engine: Inference engine of the model.
        format: Prompt format that the model expects.
        is_fine_tuned: Whether the model was fine-tuned with `MODEL_PROMPT`, so that its prompt needs no examples.
        batch_size: See `Writer`.
    """

    engine: Engine
    format: PromptFormat
    is_fine_tuned: bool = False
    batch_size: int = 8

    def write(self, sources: Sequence[WriterInput], count: int) -> list[list[Pair]]:
        """Return at most `count` unverified pairs for each passage.

        Args:
            sources: The passages.
            count: Maximum number of pairs of a passage.
        """
        asked, requests = [], []
        for place, source in enumerate(sources):
            for candidate in answer_candidates(source.text, source.language, count):
                request = self._request(candidate)
                if len(request.prompt) + _QUESTION_TOKENS <= self.engine.model.config.context_length:
                    asked.append((place, candidate.answer))
                    requests.append(request)
        pairs: list[list[Pair]] = [[] for _ in sources]
        for (place, answer), done in zip(asked, self.engine.complete_all(requests) if requests else (), strict=True):
            question = done.text.strip().partition("\n")[0]
            pairs[place].append(Pair(_BULLET.sub("", question).strip(), answer))
        return pairs

    def answer(self, questions: Sequence[tuple[str, str]]) -> list[str]:
        """Return the answers to questions. A passage that does not fit into the context is truncated as by a reader.

        An answer is "" if the question alone does not fit.

        Args:
            questions: Pairs of passage and question.
        """
        context = self.engine.model.config.context_length
        requests: dict[int, GenerationRequest] = {}
        for place, (passage, question) in enumerate(questions):
            with suppress(ConfigError):  # the question does not fit
                requests[place] = reader_request(
                    self.format, question, passage, context_length=context, max_tokens=_ANSWER_TOKENS
                )
        answers = [""] * len(questions)
        completions = self.engine.complete_all([*requests.values()]) if requests else ()
        for place, done in zip(requests, completions, strict=True):
            answers[place] = done.text
        return answers

    def _request(self, candidate: AnswerCandidate) -> GenerationRequest:
        from groundup.inference.prompting import greedy_request

        messages = []
        for text, answer, question in () if self.is_fine_tuned else SHOTS:
            messages += [
                Message("user", MODEL_PROMPT.format(passage=text, answer=answer)),
                Message("assistant", question),
            ]
        prompt = MODEL_PROMPT.format(passage=candidate.context, answer=candidate.answer)
        return greedy_request(self.format, [*messages, Message("user", prompt)], _QUESTION_TOKENS)


@contextmanager
def open_model_writer(
    model: Path, device: str | None, dtype: InferenceDtype, console: Console, *, base: Path | None = None
) -> Iterator[ModelWriter]:
    """Open a language model as a writer. Its prompt has examples, unless it was fine-tuned with `MODEL_PROMPT`.

    Args:
        model: Model directory, GGUF file or run.
        device: Device, or None for a GPU if available.
        dtype: Weight format.
        console: Console for warnings.
        base: Base model of an adapter, if it was moved.

    Raises:
        DataError: The model does not exist.
        FormatError: The model is damaged.
    """
    from groundup.hub.loading import open_chat_model
    from groundup.hub.resolve import resolve_model
    from groundup.inference import Engine
    from groundup.inference.prompting import format_for

    directory = resolve_model(model)
    made = fine_tuning_record(directory) if directory.is_dir() else None
    prompt = str(made.config.get("prompt")) if made is not None else ""
    is_fine_tuned = prompt.replace("\\n", "\n") == MODEL_PROMPT  # a line break on the command line is a backslash and n
    opened, template = open_chat_model(directory, device, console, base=base)
    with Engine.of(opened, dtype) as engine:
        yield ModelWriter(engine, format_for(opened.tokenizer, template, opened.stop_ids), is_fine_tuned)


@dataclass(frozen=True, slots=True)
class ServerWriter:
    """A writer that uses a server with OpenAI's chat completions API. It implements `Writer`.

    Attributes:
        url: Base URL of the API, such as http://127.0.0.1:8080/v1.
        model: Name of the model on the server.
        key: API key, or "" for none.
        key_variable: Name of the environment variable of the key, for error messages, or "" if none was given.
        batch_size: Number of requests at the same time.
        network: Settings of the HTTP client.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    key_variable: str = ""
    batch_size: int = 4
    network: Network = field(default_factory=lambda: Network(timeout=_SERVER_SECONDS))

    def write(self, sources: Sequence[WriterInput], count: int) -> list[list[Pair] | ConfigError]:
        """Return at most `count` unverified pairs for each passage, or the error with which the server rejects it.

        Args:
            sources: The passages.
            count: Maximum number of pairs of a passage.

        Raises:
            ConfigError: The server refuses the key, or does not have the model.
            ResourceError: The server cannot be reached, or fails again and again.
            FormatError: The response is not a chat completion.
        """
        prompts = [SERVER_PROMPT.format(passage=source.text, count=count) for source in sources]
        with ThreadPoolExecutor(self.batch_size) as pool:
            texts = list(pool.map(lambda prompt: self._complete(prompt, count * _LINE_TOKENS), prompts))
        return [parse_pairs(text)[:count] if isinstance(text, str) else text for text in texts]

    def answer(self, questions: Sequence[tuple[str, str]]) -> list[str]:
        """Return the answers to questions. An answer is "" if the server rejects the prompt.

        Args:
            questions: Pairs of passage and question.

        Raises:
            ConfigError: As for `write`.
            ResourceError: As for `write`.
            FormatError: As for `write`.
        """
        prompts = [PROMPT.format(passage=passage, question=question) for passage, question in questions]
        with ThreadPoolExecutor(self.batch_size) as pool:
            texts = list(pool.map(lambda prompt: self._complete(prompt, _LINE_TOKENS), prompts))
        return [text if isinstance(text, str) else "" for text in texts]

    def _complete(self, prompt: str, max_tokens: int) -> str | ConfigError:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        url = f"{self.url.rstrip('/')}/chat/completions"

        def post() -> Any:
            with self.network.open(url, headers, method="POST", follow=False, body=json.dumps(body).encode()) as found:
                return json.loads(found.read())

        try:
            answer = retry(post)
        except json.JSONDecodeError as error:
            shown = f"{self._shown}/chat/completions"
            raise FormatError(f"{shown}: the response is not JSON: {error}", fix=_check_url(self._shown)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            refusal = self._refusal(error)
            if isinstance(refusal, ConfigError) and getattr(error, "code", None) in _REJECTED:
                return refusal
            raise refusal from None
        try:
            return str(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError):
            shown = f"{self._shown}/chat/completions"
            raise FormatError(f"{shown}: the response is not a chat completion", fix=_check_url(self._shown)) from None

    @property
    def _shown(self) -> str:
        return without_secrets(self.url).rstrip("/")

    def _refusal(self, error: Exception) -> ConfigError | ResourceError:
        status = error.code if isinstance(error, urllib.error.HTTPError) else None
        if status in (401, 403):
            state = f"the key in {self.key_variable} is wrong" if self.key else "it needs a key"
            named = self.key_variable or "NAME"
            option = "" if self.key_variable else f" and give --key-variable {named}"
            return ConfigError(
                f"{self._shown}: HTTP status {status}: {state}",
                fix=f"Run export {named}=KEY with your API key{option}.",
            )
        if status is not None and 400 <= status < 500 and status not in (408, 429):
            assert isinstance(error, urllib.error.HTTPError)
            message = _message(error).replace(self.key, HIDDEN) if self.key else _message(error)
            return ConfigError(
                f"{self._shown}: HTTP status {status} for the model {self.model!r}: {message}",
                fix=f"{_check_url(self._shown)} Give the name of a model of the server: --server-model NAME.",
            )
        # The message of a ValueError or an InvalidURL can contain the key or a part of the login.
        described = not isinstance(error, (ValueError, http.client.InvalidURL)) and str(error)
        reason = f"HTTP status {status}" if status else described or type(error).__name__
        return ResourceError(
            f"{self._shown}: the server does not answer: {reason}",
            fix="Start the server or check the URL, then run the same command again. It continues where it stopped.",
        )


def open_server_writer(url: str, model: str, key_variable: str | None) -> ServerWriter:
    """Open a server as a writer, with its key from an environment variable.

    Args:
        url: Base URL of the API.
        model: Name of the model on the server.
        key_variable: Environment variable with the key. By default, OPENAI_API_KEY for api.openai.com, and no key for
            another host, which must not get the user's key of OpenAI.

    Raises:
        ConfigError: The URL is not valid, or the key cannot be sent in a header.
    """
    shown = without_secrets(url)
    if key_variable is None and f"{shown}/".startswith(f"{_OPENAI}/"):
        key_variable = _OPENAI_KEY
    key = os.environ.get(key_variable, "").strip() if key_variable else ""
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"the key in {key_variable} has a space or a character that is not printable ASCII",
            fix=f"Run export {key_variable}=KEY with your API key.",
        )
    return ServerWriter(url, model, key, key_variable or "")


def without_secrets(url: str) -> str:
    """Return the URL of a server without its login and tokens, to print or record it.

    Raises:
        ConfigError: The URL is not valid.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:  # the URL is not printed, because it can contain a password
        raise ConfigError(
            "--server is not a valid URL",
            fix="Give a URL such as http://127.0.0.1:8080/v1, with special characters of a login percent-encoded.",
        )
    return redacted(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))


def parse_pairs(text: str) -> list[Pair]:
    """Return the pairs of a completion that has one line `question | answer` for each of them."""
    pairs = []
    for line in text.splitlines():
        question, bar, answer = line.strip().strip("|").rpartition("|")
        question, answer = _BULLET.sub("", question).strip(" *|"), _ANSWER.sub("", answer.strip()).strip(" *\"'“”")
        if bar and question and answer:
            pairs.append(Pair(question, answer))
    return pairs


def _check_url(url: str) -> str:
    return "" if url.rstrip("/").endswith("/v1") else f"The URL usually ends with /v1: --server {url.rstrip('/')}/v1."


def _message(error: urllib.error.HTTPError) -> str:
    """Return the message in the body of an error in OpenAI's format, or the reason of the status."""
    try:
        found = json.loads(error.read())["error"]
        return str(found["message"] if isinstance(found, dict) else found)[:200]
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)
