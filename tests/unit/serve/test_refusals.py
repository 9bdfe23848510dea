"""An invalid request causes an error that contains the parameter, its value and the fix."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "tiny", "prompt": "Hi"}


def schema(name: str, given: Any) -> dict[str, Any]:
    """Return the request parameter that contains a JSON schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": given}}}


def content(value: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": value}]}


@pytest.mark.parametrize(
    ("changes", "param", "code", "said"),
    [
        ({"temperature": "hot"}, "temperature", "invalid_type", "'hot'"),
        ({"temperature": 2.5}, "temperature", "invalid_value", "2.5"),
        ({"top_p": 0}, "top_p", "invalid_value", "greater than 0"),
        ({"n": 0}, "n", "invalid_value", "n = 0"),
        ({"n": 1000}, "n", "invalid_value", "1000"),
        ({"n": True}, "n", "invalid_type", "True"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "max_tokens = 0"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens", "invalid_value", "old name"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value", "''"),
        ({"stop": ["a"] * 257}, "stop", "invalid_value", "256"),
        ({"seed": 2**64}, "seed", "invalid_value", str(2**64)),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value", "logprobs = true"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value", "stream = true"),
        ({"stream": True, "stream_options": 1}, "stream_options", "invalid_type", "1"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter", "Give function"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", "'xml'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_value", "schema"),
        (schema("no spaces", {}), "response_format.json_schema.name", "invalid_value", "no spaces"),
        (schema("x", []), "response_format.json_schema.schema", "invalid_type", "[]"),
        (schema("x", {"$ref": "http://127.0.0.1/"}), "response_format", "invalid_json_schema", "references within"),
        (schema("x", {"not": {}}), "response_format", "invalid_json_schema", "not"),
        (
            schema("x", {"type": "string", "minLength": 50}) | {"max_tokens": 9},
            "max_tokens",
            "invalid_value",
            "may need",
        ),
        (schema("x", {}) | {"stop": "}"}, "stop", "invalid_value", "cut the output"),
        ({"guided_regex": "("}, "guided_regex", "invalid_grammar", "unclosed group"),
        ({"guided_choice": []}, "guided_choice", "invalid_value", "at least 1"),
        ({"guided_json": "{"}, "guided_json", "invalid_value", "JSON schema"),
        ({"guided_grammar": "start: x"}, "guided_grammar", "invalid_grammar", "x"),
        ({"grammar": "root ::= x"}, "grammar", "invalid_grammar", "x"),
        (
            {"structured_outputs": {"structural_tag": "x"}},
            "structured_outputs.structural_tag",
            "unsupported_value",
            "x",
        ),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice", "invalid_value", "one"),
        (schema("x", {}) | {"guided_regex": "a"}, "guided_regex", "invalid_value", "cannot be combined"),
        ({"logit_bias": [5]}, "logit_bias", "invalid_type", "token IDs"),
        ({"logit_bias": {"five": 1}}, "logit_bias", "invalid_value", "five"),
        ({"logit_bias": {"5": "1"}}, "logit_bias", "invalid_type", "numbers"),
        ({"logit_bias": {"5": True}}, "logit_bias", "invalid_type", "numbers"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "invalid_value", "-100 to 100"),
        ({"logit_bias": {"1024": 1}}, "logit_bias", "invalid_value", "0 to 1023"),
        ({"logit_bias": {str(i): -100 for i in range(1024)}}, "logit_bias", "invalid_value", "at least one token"),
        ({"chat_template_kwargs": ["a"]}, "chat_template_kwargs", "invalid_type", "'a'"),
        ({"reasoning_effort": 5}, "reasoning_effort", "invalid_type", "5"),
        ({"messages": []}, "messages", "invalid_value", "at least 1"),
        ({"messages": "Hi"}, "messages", "invalid_type", "'Hi'"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "missing_required_parameter",
            "missing",
        ),
        ({"messages": [{"role": "actor", "content": "x"}]}, "messages[0].role", "invalid_value", "'tool'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter", "missing"),
        (content(None), "messages[0].content", "invalid_type", "None"),
        (content([{"type": "image_url", "image_url": {}}]), "messages[0].content", "unsupported_value", "text"),
        ({"messages": None}, "messages", "missing_required_parameter", "messages"),
        ({"model": None}, "model", "missing_required_parameter", "model"),
    ],
)
def test_an_invalid_chat_call_is_400(server: Any, changes: dict[str, Any], param: str, code: str, said: str) -> None:
    with server.http() as http:
        answer = http.post("/v1/chat/completions", json=CHAT | changes)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert (error["type"], error.keys()) == ("invalid_request_error", {"message", "type", "param", "code"})
    assert said in error["message"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [999_999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 129}, "n"),
        ({"prompt": ["a"] * 5, "best_of": 100}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"echo": True, "logprobs": 21}, "logprobs"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_an_invalid_completion_call_is_400(server: Any, changes: dict[str, Any], param: str) -> None:
    with server.http() as http:
        answer = http.post("/v1/completions", json=TEXT | changes)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"input": []}, "input", "text"),
        ({"input": ["a", ""]}, "input", "empty"),
        ({"input": ["a", 1]}, "input", "text"),
        ({"input": [[-1]]}, "input", "unknown token ID -1"),
        ({"input": [1] * 513}, "input", "513 tokens"),
        ({"input": ["a"] * 2049}, "input", "2048"),
        ({"dimensions": 7}, "dimensions", "dimensions = 7"),
        ({"encoding_format": "hex"}, "encoding_format", "hex"),
    ],
)
def test_an_invalid_embedding_call_is_400(server: Any, changes: dict[str, Any], param: str, said: str) -> None:
    with server.http() as http:
        answer = http.post("/v1/embeddings", json={"model": "tiny", "input": "Hi"} | changes)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 50_000,
        b'{"model": "tiny", "messages": NaN}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "tiny", "temperature": Infinity, "messages": [{"role": "user", "content": "x"}]}',
    ],
)
def test_invalid_json_is_400(server: Any, body: bytes) -> None:
    with server.http() as http:
        answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_defaults_of_unsupported_parameters_are_accepted(server: Any) -> None:
    """Some client libraries send all parameters that they support."""
    neutral = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logit_bias": {},
        "store": False,
        "metadata": {"a": "b"},
        "user": "u",
        "service_tier": "auto",
        "modalities": ["text"],
        "functions": None,
        "reasoning_effort": None,
        "stop": None,
        "n": None,
        "seed": -5,
    }
    with server.http() as http:
        answer = http.post("/v1/chat/completions", json=CHAT | neutral | {"max_tokens": 2})
    assert answer.status_code == 200, answer.text


def test_an_unknown_model_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"'gpt-4'.*'tiny'") as refused:
        client.chat.completions.create(**CHAT | {"model": "gpt-4"})
    assert refused.value.code == "model_not_found"


def test_a_conversation_that_does_not_fit_is_an_error(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    """If the conversation were truncated, its beginning would be lost without a message."""
    text = "word " * 600
    for call in (
        lambda: client.chat.completions.create(**CHAT | content(text)),
        lambda: client.completions.create(**TEXT | {"prompt": text}),
        lambda: client.completions.create(**TEXT | {"prompt": [tokenizer.bos_id] * 512}),
    ):
        with pytest.raises(openai.BadRequestError, match="context of 512 tokens") as refused:
            call()
        assert refused.value.code == "context_length_exceeded"
    full = client.completions.create(**TEXT | {"prompt": [tokenizer.bos_id] * 511, "max_tokens": 100})
    assert full.usage is not None
    assert (full.usage.completion_tokens, full.choices[0].finish_reason) in ((1, "length"), (1, "stop"))


@pytest.mark.parametrize("text", ["=" * 3_000_000, "\n" * 1_000_000, "a b " * 700_000])
def test_a_megabyte_is_rejected_without_encoding(client: openai.OpenAI, text: str) -> None:
    """Tokenization of such a text takes seconds, which would allow denial-of-service attacks."""
    halves = [{"role": "user", "content": text[: len(text) // 2]}, {"role": "user", "content": text[len(text) // 2 :]}]
    for call in (
        lambda: client.chat.completions.create(**CHAT | {"messages": halves}),
        lambda: client.completions.create(**TEXT | {"prompt": ["short", text]}),
    ):
        with pytest.raises(openai.BadRequestError, match="bytes of text") as refused:
            call()
        assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("POST", "/v1/images", 404),
        ("GET", "/", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/../../etc/passwd", 404),
    ],
)
def test_unknown_paths_and_methods_have_the_same_error_format(server: Any, method: str, path: str, status: int) -> None:
    with server.http() as http:
        answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_content_type_must_be_json(server: Any) -> None:
    """Without a CORS preflight, a web page can send only other content types to a different origin."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        with server.http() as http:
            answer = http.post("/v1/chat/completions", content=json.dumps(CHAT), headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_is_rejected(server: Any, announced: bool) -> None:
    """The size of the body is either announced in the Content-Length header or unknown (chunked transfer encoding)."""
    body = b'{"model": "' + b"x" * 8_000_000 + b'"}'
    pieces = (body[i : i + 65_536] for i in range(0, len(body), 65_536))
    with server.http() as http:
        headers = {"Content-Type": "application/json"}
        answer = http.post("/v1/chat/completions", content=body if announced else pieces, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_responses_have_no_cors_headers(server: Any) -> None:
    with server.http(headers={"Origin": "http://evil.example"}) as http:
        answers = [http.get("/v1/models"), http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 1})]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "a b", "[::1"])
def test_other_host_names_are_rejected_on_loopback(server: Any, host: str) -> None:
    """DNS rebinding: the attacker's domain resolves to this machine, so the browser regards it as the same origin."""
    with server.http(headers={"Host": host}) as http:
        answer = http.get("/v1/models")
    assert answer.status_code in (400, 403)
    assert "tiny" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:8000", "[::1]:8000"])
def test_loopback_names_are_accepted(server: Any, host: str) -> None:
    """Any port in the Host header is accepted, because the port may be forwarded."""
    with server.http(headers={"Host": host}) as http:
        assert http.get("/v1/models").status_code == 200


def test_only_health_works_without_the_key(start: Any, model: Transformer) -> None:
    server = start(model, api_key="sesame-street", loopback_only=False)
    assert server.client(api_key="sesame-street").completions.create(**TEXT, max_tokens=1).choices
    for wrong in ("sesame-stree", "sesame-street1", "Sesame-Street", "x"):
        with pytest.raises(openai.AuthenticationError, match="Bearer") as refused:
            server.client(api_key=wrong).models.list()
        assert refused.value.code == "invalid_api_key"
    with server.http() as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/models", headers={"Authorization": "Basic sesame-street"}).status_code == 401
        assert http.get("/v1/models", headers={"Authorization": "bearer sesame-street"}).status_code == 200
        assert http.get("/nowhere").status_code == 401, "clients without the key must not learn which paths exist"
        assert http.get("/health").json() == {"status": "ok"}


def test_a_browser_may_send_the_key_as_a_password(start: Any, model: Transformer) -> None:
    """The guard accepts a password only if its option is set. A wrong password causes status 401."""
    server = start(model, api_key="sésame:street", loopback_only=False, browser=True)
    with server.http() as http:
        asked = http.get("/v1/models")
        assert (asked.status_code, asked.headers["www-authenticate"][:5]) == (401, "Basic")
        assert http.get("/v1/models", auth=("anyone", "sésame:street")).status_code == 200
        for wrong in ("sésame:stree", "", "sésame:street:"):
            assert http.get("/v1/models", auth=("anyone", wrong)).status_code == 401
        broken = http.get("/v1/models", headers={"Authorization": "Basic ~"})
        assert broken.status_code == 401
    plain = start(model, api_key="sesame", loopback_only=False)
    with plain.http() as http:
        assert http.get("/v1/models", auth=("anyone", "sesame")).status_code == 401
        assert http.get("/v1/models").headers["www-authenticate"] == "Bearer"
