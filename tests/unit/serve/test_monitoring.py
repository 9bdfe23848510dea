"""Metrics, the request log, CORS and the OpenAPI document."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from groundup.core.errors import ConfigError
from groundup.model import Transformer
from groundup.serve import ServedModels, build_app
from groundup.serve.http.cors import allow_origins

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
TEXT: dict[str, Any] = {"model": "tiny", "prompt": "The", "max_tokens": 5, "temperature": 0, "user": "ada"}
ORIGIN = "https://chat.example.com"


def samples(http: Any) -> dict[tuple[str, ...], float]:
    """Return the values of all samples by name and labels."""
    answer = http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    found = [each for family in text_string_to_metric_families(answer.text) for each in family.samples]
    return {(each.name, *(value for _, value in sorted(each.labels.items()))): each.value for each in found}


def test_metrics_count_requests_and_tokens(start: Any, model: Transformer) -> None:
    server, other = start(model), start(model)
    with server.http() as http, other.http() as silent:
        usage = http.post("/v1/chat/completions", json=CHAT).json()["usage"]
        streamed = http.post("/v1/completions", json=TEXT | {"stream": True}).text
        http.post("/v1/completions", json=TEXT | {"n": -1})
        http.get("/v1/models/" + "x" * 50)
        http.get("/some/path")
        found = samples(http)
        assert samples(silent)["groundup:generation_tokens_total",] == 0, "servers do not share metrics"
    assert streamed.count('"text"') == 5
    assert found["http_requests_total", "/v1/completions", "POST", "200"] == 1
    assert found["http_requests_total", "/v1/completions", "POST", "400"] == 1
    assert found["http_requests_total", "/v1/models/{name}", "GET", "404"] == 1
    assert found["http_requests_total", "other", "GET", "404"] == 1, "clients cannot create labels"
    assert found["groundup:generation_tokens_total",] == usage["completion_tokens"] + 5
    assert found["groundup:prompt_tokens_total",] > usage["prompt_tokens"]
    assert found["groundup:time_to_first_token_seconds_count",] == 2
    assert found["groundup:inter_token_latency_seconds_count",] == usage["completion_tokens"] + 5 - 2
    assert found["groundup:e2e_request_latency_seconds_count",] == 2
    assert found["groundup:num_requests_running",] == found["groundup:num_requests_waiting",] == 0


def test_metrics_need_the_key(start: Any, model: Transformer) -> None:
    server = start(model, api_key="sesame", loopback_only=False)
    with server.http() as http:
        for path in ("/metrics", "/openapi.json", "/docs"):
            assert http.get(path).status_code == 401
            assert http.get(path, headers={"Authorization": "Bearer sesame"}).status_code == 200


def test_a_log_line_has_tokens_but_no_text(start: Any, model: Transformer) -> None:
    server = start(model)
    with server.http() as http:
        http.post("/v1/completions", json=TEXT | {"prompt": "xylophone", "stream": True, "top_a": 1})
        http.get("/health%0a200 GET /forged")
    while len(server.notes) < 2:  # a line is written after the response was sent
        time.sleep(0.01)
    line, forged = sorted(server.notes)
    assert re.fullmatch(r"200 POST /v1/completions \d+ ms, \d+ prompt tokens, 5 generated, ignored: top_a", line)
    assert "\n" not in forged and r"\n200 GET /forged" in forged


def test_cors_is_limited_to_the_given_origins(start: Any, model: Transformer) -> None:
    server = start(model, api_key="sesame", loopback_only=False, cors_origins=(ORIGIN,))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    key = {"Authorization": "Bearer sesame"}
    with server.http() as http:
        allowed = http.options("/v1/chat/completions", headers={"Origin": ORIGIN, **asks})
        assert allowed.status_code == 200, "browsers send preflight requests without a key"
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        answer = http.post("/v1/completions", json=TEXT, headers={"Origin": ORIGIN, **key})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        for refused in (
            http.options("/v1/completions", headers={"Origin": "https://evil.example", **asks}),
            http.post("/v1/completions", json=TEXT, headers={"Origin": "https://evil.example", **key}),
        ):
            assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("origin", ["chat.example.com", "https://x.example/", "ftp://x.example", "https://", "null"])
def test_an_invalid_origin_is_an_error(origin: str) -> None:
    with pytest.raises(ConfigError, match="without a path"):
        allow_origins(build_app(ServedModels([])), [origin])


def test_the_document_describes_all_endpoints(server: Any) -> None:
    with server.http() as http:
        document, page = http.get("/openapi.json").json(), http.get("/docs")
    paths = {route.path_format for route in build_app(ServedModels([])).routes if isinstance(route, Route)}
    assert paths - {"/openapi.json", "/docs"} <= document["paths"].keys()
    body = document["components"]["schemas"]["ChatBody"]
    assert body["properties"]["temperature"]["maximum"] == 2 and {"model", "messages"} <= set(body["required"])
    references = set(re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')))
    assert references <= document["components"]["schemas"].keys()
    assert "/v1/chat/completions" in page.text and "top_logprobs" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"<script|https?://", page.text), "the page works without other servers"
