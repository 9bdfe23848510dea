"""Applications over HTTP: the tests check inputs, results, streams and errors."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

LETTER = "The committee met on Monday. It chose a new chair. The roof will be mended in May.\n\n" * 60


def events(answer: httpx.Response) -> list[Any]:
    """Return the JSON objects in a stream of server-sent events."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_list_contains_the_inputs_of_applications(server: Any) -> None:
    """The Studio builds its forms from this list."""
    with server.http() as http:
        descriptions = {each["name"]: each for each in http.get("/v1/apps").json()["data"]}
    assert {"summarize", "translate", "mcq", "intent", "poem"} <= descriptions.keys()
    text, sentences = descriptions["summarize"]["inputs"]
    assert (text["name"], text["type"], text["required"]) == ("text", "text", True)
    assert (sentences["type"], sentences["default"], sentences["max"], sentences["required"]) == (
        "number",
        3,
        20,
        False,
    )
    assert descriptions["rewrite"]["inputs"][1]["choices"][0] == "simpler"
    assert descriptions["mcq"]["output"]["kind"] == "json"


def test_complete_and_streamed_results_are_equal(server: Any) -> None:
    body = {"inputs": {"topic": "a lighthouse"}, "seed": 3, "max_tokens": 30}
    with server.http() as http:
        whole = http.post("/v1/apps/poem", json=body).json()
        told = events(http.post("/v1/apps/poem", json=body | {"stream": True}))
    assert whole["app"] == "poem" and whole["model"] == "tiny" and whole["text"]
    assert told[-1] == {"type": "result", **whole}
    pieces = [each["text"] for each in told[:-1] if each["type"] == "text"]
    assert "".join(pieces).strip() == whole["text"]
    assert len(pieces) > 5, "the result must be streamed in several pieces"


def test_a_long_text_streams_its_progress(server: Any) -> None:
    body = {"inputs": {"text": LETTER}, "stream": True, "max_tokens": 20, "temperature": 0.0}
    with server.http() as http:
        told = events(http.post("/v1/apps/summarize", json=body))
    progress = [(each["done"], each["total"]) for each in told if each["type"] == "progress"]
    assert progress[0][0] == 0 and progress[0][1] > 2
    assert progress[: progress[0][1] + 1] == [(n, progress[0][1]) for n in range(progress[0][1] + 1)]
    assert told[-1]["parts"] == progress[0][1]


def test_labels_have_probabilities(server: Any) -> None:
    labels = ["ask for help", "complain", "say thanks"]
    with server.http() as http:
        done = http.post("/v1/apps/intent", json={"inputs": {"text": "Thank you all!", "labels": labels}}).json()
    assert list(done["probabilities"]) == labels
    assert sum(done["probabilities"].values()) == pytest.approx(1)
    assert done["value"] == done["text"] == max(done["probabilities"], key=done["probabilities"].get)


@pytest.mark.parametrize(
    ("name", "body", "status", "said"),
    [
        ("sumarize", {"inputs": {"text": "x"}}, 404, "summarize"),
        ("summarize", {"inputs": {}}, 400, "text is missing"),
        ("summarize", {"inputs": {"text": "x", "sentences": 99}}, 400, "from 1 to 20"),
        ("summarize", {"inputs": {"text": "x", "sentence": 2}}, 400, "'sentences'?"),
        ("rewrite", {"inputs": {"text": "x", "style": "louder"}}, 400, "simpler"),
        ("intent", {"inputs": {"text": "x", "labels": ["one"]}}, 400, "2 to 100"),
        ("assistant", {"inputs": {"message": "why " * 2_000}}, 400, "context"),
        ("summarize", {"inputs": {"text": "x"}, "model": "gpt-4"}, 404, "tiny"),
        ("summarize", {"inputs": {"text": "x"}, "steam": True}, 400, "stream?"),
        ("summarize", {"inputs": "x"}, 400, "inputs"),
    ],
)
def test_invalid_requests_are_errors(server: Any, name: str, body: dict[str, Any], status: int, said: str) -> None:
    with server.http() as http:
        answer = http.post(f"/v1/apps/{name}", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_an_error_in_a_stream_is_an_event_and_ends_it(server: Any) -> None:
    """The HTTP status is already sent. Without an error event, a client would wait forever."""
    with server.http() as http:
        answer = http.post("/v1/apps/summarize", json={"inputs": {"text": " "}, "stream": True})
    (error,) = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert "text is missing" in error["error"]["message"]


def test_applications_require_the_api_key(start: Any, model: Any) -> None:
    server = start(model, api_key="secret")
    with server.http() as http:
        assert http.get("/v1/apps").status_code == 401
        assert http.post("/v1/apps/poem", json={"inputs": {"topic": "x"}}).status_code == 401
        assert http.get("/v1/apps", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_a_disconnected_client_cancels_its_task(start: Any, long_model: Any) -> None:
    """Otherwise, the task would occupy the engine until its last token."""
    server = start(long_model, max_active=1)
    body = {"inputs": {"text": "The beginning"}, "stream": True, "max_tokens": 15_000, "temperature": 0.0}
    with server.http() as http:
        with http.stream("POST", "/v1/apps/continue", json=body) as answer:
            next(answer.iter_lines())
        after = http.post("/v1/apps/poem", json={"inputs": {"topic": "rain"}, "max_tokens": 3}, timeout=30)
    assert after.status_code == 200
