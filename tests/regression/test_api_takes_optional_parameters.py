"""In an earlier release, the API rejected requests with optional parameters that official clients send.

Requests with `reasoning_effort`, `verbosity`, `chat_template_kwargs`, `logit_bias`, `store` or more than 4 stop texts
caused status 400.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from starlette.testclient import TestClient

from groundup.inference import Engine, GenerationRequest, Grammar, Sampling
from groundup.inference.sampling import add_bias, distribution
from groundup.model import Transformer
from groundup.serve import ServedModel, ServedModels, build_app
from groundup.serve.http.middleware import with_middleware
from groundup.serve.metrics import Metrics
from groundup.serve.openai.body import read_body
from groundup.serve.openai.chat_schema import ChatBody
from groundup.tokenizer import ChatTemplate, Tokenizer

HEADER = "X-Groundup-Ignored"
CALL: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if depth is defined %}{{ 1 // depth }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if mood == 'calm' %}[calmly]{% elif mood %}"
    "[{{ mood }}]{% endif %}{% if reasoning_effort %}({{ reasoning_effort }}){% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size, context_length=512)


@pytest.fixture(scope="module")
def served(model: Transformer, tokenizer: Tokenizer) -> Iterator[ServedModel]:
    with Engine(model, tokenizer) as engine:
        yield ServedModel("tiny", engine, ChatTemplate(tokenizer), created=0)


@pytest.fixture(scope="module")
def notes() -> list[str]:
    return []


@pytest.fixture(scope="module")
def client(served: ServedModel, notes: list[str]) -> openai.OpenAI:
    """Return the official client, connected directly to the ASGI application."""
    app = build_app(ServedModels([served]))
    logged = with_middleware(app, Metrics(), api_key=None, loopback_only=False, note=notes.append)
    return openai.OpenAI(base_url="http://tiny/v1", api_key="none", max_retries=0, http_client=TestClient(logged))


def created(client: openai.OpenAI, **changes: Any) -> tuple[Any, set[str]]:
    """Return the response, and the parameters that its header lists as ignored."""
    raw = client.chat.completions.with_raw_response.create(**CALL | changes)
    return raw.parse(), set(filter(None, raw.headers.get(HEADER, "").split(", ")))


def test_parameters_without_effect_are_named_in_a_header(client: openai.OpenAI, notes: list[str]) -> None:
    asked: dict[str, Any] = {
        "reasoning_effort": "low",
        "verbosity": "low",
        "store": True,
        "metadata": {"a": "b"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "prediction": {"type": "content", "content": "x"},
        "web_search_options": {},
        "audio": {"voice": "alloy", "format": "wav"},
    }
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "min_tokens": 5, "temprature": 1}
    answer, ignored = created(client, **asked, extra_body=extra)
    assert answer.choices[0].message.content is not None
    used = {"user", "safety_identifier"}  # for fairness between users
    assert ignored == {*asked, "chat_template_kwargs.enable_thinking", "min_tokens", "temprature"} - used
    assert "ignored: " in notes[-1] and "reasoning_effort" in notes[-1]


def test_the_header_comes_with_streams_and_completions_too(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(**CALL, stream=True, store=True) as streamed:
        assert streamed.headers[HEADER] == "store"
        assert "[DONE]" in streamed.read().decode()
    raw = client.completions.with_raw_response.create(
        model="tiny", prompt="Hi", max_tokens=2, user="u", extra_body={"reasoning_effort": "low"}
    )
    assert set(raw.headers[HEADER].split(", ")) == {"reasoning_effort"}


def test_supported_parameters_and_defaults_are_not_reported(client: openai.OpenAI) -> None:
    _, ignored = created(
        client, store=False, service_tier="auto", parallel_tool_calls=True, modalities=["text"], tools=[], seed=1, n=1
    )
    assert ignored == set()


VALUES: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "best_of": 2,
    "dimensions": 32,
    "echo": True,
    "encoding_format": "float",
    "frequency_penalty": 0.5,
    "function_call": "none",
    "functions": [],
    "logit_bias": {"5": -100},
    "logprobs": 3,
    "max_completion_tokens": 2,
    "max_tokens": 2,
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "moderation": {"model": "omni"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": -0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "high",
    "response_format": {"type": "text"},
    "safety_identifier": "s",
    "seed": -7,
    "service_tier": "priority",
    "stop": ["a stop text of some length", "\n\n"],
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "suffix": "",
    "temperature": 0.3,
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": 2,
    "top_p": 0.5,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {},
}
NEEDS: dict[str, dict[str, Any]] = {"top_logprobs": {"logprobs": True}, "stream_options": {"stream": True}}
TRANSPORT = {"extra_headers", "extra_query", "extra_body", "timeout"}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "chat.completions": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
    "completions": {"model": "tiny", "prompt": "Hi"},
    "embeddings": {"model": "tiny", "input": "Hi"},
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_parameter_of_the_official_client_is_accepted(client: openai.OpenAI, endpoint: str) -> None:
    """Each alone, and all of those that can be combined at once."""
    create = attrgetter(f"{endpoint}.create")(client)
    required = ENDPOINTS[endpoint]
    names = set(inspect.signature(create).parameters) & VALUES.keys() - TRANSPORT - required.keys()
    limit = {} if endpoint == "embeddings" else {"max_tokens": 3}
    values = VALUES | {"logprobs": True} if endpoint == "chat.completions" else VALUES
    for name in names:
        given = required | (limit if name != "max_completion_tokens" else {}) | NEEDS.get(name, {})
        answer = create(**given | {name: values[name]})
        assert list(answer) if name in ("stream", "stream_options") else (answer.model == "tiny")
    together = names - {"max_completion_tokens", "best_of", "dimensions"}
    assert len(together) > (1 if endpoint == "embeddings" else 12)
    answer = create(**required | {name: values[name] for name in together})
    assert list(answer) if "stream" in together else answer.data[0].embedding


def test_names_that_are_invalid_in_a_header_are_replaced(client: openai.OpenAI) -> None:
    """A line break in a header value would start a new header."""
    names = ["a\r\nSet-Cookie: x=1", "ключ", "", *(f"p{i}" for i in range(100))]
    _, ignored = created(client, extra_body=dict.fromkeys(names, 1))
    assert "?" in ignored
    assert len(ignored) <= 32
    _, ignored = created(client, messages=[{"role": "user", "content": "Hi", "name": "Ann", "cache_control": {}}])
    assert ignored == {"messages.name", "messages.cache_control"}


def test_many_stops_are_taken(client: openai.OpenAI) -> None:
    whole, _ = created(client, max_tokens=40, temperature=0, seed=1)
    text = whole.choices[0].message.content
    stops = [f"<never {i}>" for i in range(9)] + [text[10:13]]
    stopped, _ = created(client, max_tokens=40, temperature=0, seed=1, stop=stops)
    assert stopped.choices[0].message.content == text[: text.index(text[10:13])]
    assert stopped.choices[0].finish_reason == "stop"


def test_a_logit_bias_is_added_to_the_logits() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(logit_bias=((3, 2.5), (7, -1.0)))
    expected = logits.clone()
    expected[3] += 2.5
    expected[7] -= 1.0
    torch.testing.assert_close(distribution(add_bias(logits, sampling), sampling), expected.double().softmax(-1))


def test_biases_of_100_ban_and_select(client: openai.OpenAI, served: ServedModel) -> None:
    """Bans and selections work even if the model's logits differ by more than 100.

    The reported log-probabilities are the log-probabilities of the model without the bias.
    """
    steep = torch.tensor([0.0, 500.0, 1000.0])
    assert add_bias(steep, Sampling(logit_bias=((2, -100.0),))).argmax() == 1
    assert add_bias(steep, Sampling(logit_bias=((0, 100.0),))).argmax() == 0
    plain, _ = created(client, temperature=0, logprobs=True, top_logprobs=3)
    first = plain.choices[0].logprobs.content[0]
    banned = served.tokenizer.encode(first.token, continues=True)[0]
    others, _ = created(client, temperature=0, logprobs=True, top_logprobs=3, logit_bias={str(banned): -100})
    second = others.choices[0].logprobs.content[0]
    assert second.token == first.top_logprobs[1].token
    assert second.top_logprobs == first.top_logprobs
    only = [served.tokenizer.encode(" the", continues=True)[0], served.tokenizer.encode("a", continues=True)[0]]
    chosen, _ = created(
        client, max_tokens=40, temperature=2, seed=3, logprobs=True, logit_bias={str(i): 100 for i in only}
    )
    drawn = [each.token for each in chosen.choices[0].logprobs.content]
    assert len(drawn) == 40
    assert set(drawn) == {served.tokenizer.decode([i]) for i in only}


def test_json_is_valid_in_spite_of_a_bias(served: ServedModel) -> None:
    """If a bias bans the only token that the schema allows next, the schema takes precedence."""
    grammar = Grammar.of_schema({"type": "object", "properties": {"a": {"type": "integer"}}}, served.tokenizer)
    bias = tuple((i, -100.0) for i in range(served.engine.vocab_size) if i != 5)
    request = GenerationRequest(prompt="x", grammar=grammar, max_tokens=30, seed=0, sampling=Sampling(logit_bias=bias))
    assert isinstance(json.loads(served.engine.complete(request).text), dict)


@pytest.fixture(scope="module")
def thinking(model: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a served model whose chat template reads variables."""
    directory: Path = tmp_path_factory.mktemp("template")
    tokenizer.save(directory)
    own = Tokenizer.load(directory)
    own.set_chat_template(TEMPLATE)
    with Engine(model, own) as engine:
        yield ServedModel("tiny", engine, ChatTemplate(own), created=0)


def test_the_chat_template_gets_its_variables(thinking: ServedModel, tokenizer: Tokenizer) -> None:
    def prompt(**changes: Any) -> tuple[str, tuple[str, ...]]:
        job = thinking.chat(read_body(ChatBody, json.dumps(CALL | changes).encode()))
        return tokenizer.decode(job.requests[0].prompt, skip_special_tokens=False), job.ignored

    plain, ignored = prompt()
    assert plain.endswith("assistant\n") and ignored == ()
    assert prompt(chat_template_kwargs={"mood": "calm"}) == (plain + "[calmly]", ())
    assert prompt(reasoning_effort="high") == (plain + "(high)", ())
    given = {"mood": "x", "messages": [], "add_generation_prompt": False, "bos_token": "y", "other": 1}
    assert prompt(chat_template_kwargs=given) == (
        plain + "[x]",
        tuple(f"chat_template_kwargs.{name}" for name in ("messages", "add_generation_prompt", "bos_token", "other")),
    )
    ids = (
        thinking.chat(read_body(ChatBody, json.dumps(CALL | {"chat_template_kwargs": {"mood": "<|im_end|>"}}).encode()))
        .requests[0]
        .prompt
    )
    assert list(ids).count(tokenizer.token_id("<|im_end|>")) == 1, "text must not be tokenized as a special token"


def test_a_template_that_fails_on_a_variable_is_a_client_error(thinking: ServedModel) -> None:
    from groundup.serve import ApiError

    with pytest.raises(ApiError) as refused:
        thinking.chat(read_body(ChatBody, json.dumps(CALL | {"chat_template_kwargs": {"depth": 0}}).encode()))
    assert (refused.value.status, refused.value.param) == (400, "chat_template_kwargs")
