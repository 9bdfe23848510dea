"""Endpoints of the Studio: responses, errors and security headers."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from groundup.apps import Catalog
from groundup.apps.serving import ServedApps
from groundup.core.artifact import begin
from groundup.evaluation.internals import TextTrace, nearest_tokens
from groundup.hub import load_model, save_classifier
from groundup.hub.loading import open_model
from groundup.model import SequenceClassifier
from groundup.recipes import bundled
from groundup.studio import Jobs, StudioModels, Workspace, build_studio
from groundup.tokenizer import Tokenizer

TEXT = "The import system is powerful enough. <script>alert(1)</script>"


@pytest.fixture(scope="module")
def reading(runs: Path, tokenizer: Tokenizer) -> TextTrace:
    """The same forward pass, without the server."""
    model = load_model(runs / "two" / "base", device="cpu")
    return TextTrace(model, [tokenizer.bos_id, *tokenizer.encode(TEXT)])


def inside(studio: Any, endpoint: str, **params: Any) -> Any:
    with studio.http() as http:
        answer = http.post(f"/studio/api/inside/{endpoint}", json={"model": "two/base", "text": TEXT} | params)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "path",
    ["/studio/", "/studio/main.js", "/studio/api/overview", "/v1/models", "/studio/nothing", "/studio/page/report/one"],
)
def test_every_response_has_security_headers(studio: Any, path: str) -> None:
    with studio.http() as http:
        headers = http.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert not [name for name in headers if name.startswith("access-control-")]


def test_a_report_is_sandboxed(studio: Any) -> None:
    with studio.http() as http:
        answer = http.get("/studio/page/report/one")
    assert answer.status_code == 200
    assert "sandbox allow-scripts" in answer.headers["content-security-policy"]
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/studio/../app.py",
        "/studio/%2e%2e/routes.py",
        "/studio/static/main.js",
        "/studio/page/tokens/one/base",
        "/studio/page/card/one/base",
        "/studio/page/report/..%2f..",
        "/studio/page/secret/one",
        "/studio/api/stage?id=../../etc",
        "/studio/api/stage",
        "/studio/api/search?id=one/none&text=a",
    ],
)
def test_unknown_paths_get_api_errors(studio: Any, path: str) -> None:
    with studio.http() as http:
        answer = http.get(path)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]


def test_post_endpoints_require_json(studio: Any) -> None:
    """A page of another site can post a form without a preflight request, but not JSON."""
    for path in ("start", "stop", "inside/surprisal"):
        with studio.http() as http:
            kind = {"Content-Type": "text/plain"}
            assert http.post(f"/studio/api/{path}", content='{"run": "one"}', headers=kind).status_code == 415
            assert http.get(f"/studio/api/{path}").status_code == 405


def test_only_listed_recipes_can_be_started(studio: Any) -> None:
    with studio.http() as http:
        for recipe in ("../../etc/passwd", "/etc/passwd", "none.toml"):
            answer = http.post("/studio/api/start", json={"recipe": recipe, "name": "x"})
            assert answer.status_code == 400
    assert studio.jobs.status("x") is None


def test_the_overview_lists_runs_models_and_recipes(studio: Any) -> None:
    with studio.http() as http:
        overview = http.get("/studio/api/overview").json()
    assert {run["name"] for run in overview["runs"]} == {"one", "two"}
    assert [model["name"] for model in overview["models"]] == ["one/base", "two/base", "alone"]
    assert [recipe["file"] for recipe in overview["recipes"]] == ["bad.toml", *bundled(), "one/recipe.toml"]
    assert {"file": "quickstart", "name": "quickstart"} in overview["recipes"]
    assert "directory" not in overview["runs"][0]["stages"][0]  # paths stay on the server


def test_surprisals_match_the_model(studio: Any, reading: TextTrace) -> None:
    response = inside(studio, "surprisal")
    assert [token["id"] for token in response["tokens"]] == list(reading.ids)
    assert "".join(token["text"] for token in response["tokens"][1:]) == TEXT
    nats = [surprisal.nats for surprisal in reading.surprisals()]
    assert [token["nats"] for token in response["tokens"][1:]] == pytest.approx(nats, abs=1e-4)
    assert response["bits_per_byte"] == pytest.approx(sum(nats) / np.log(2) / len(TEXT.encode()), rel=1e-4)
    assert response["head_stats"][2][1][1] == pytest.approx(reading.patterns[2][1].first, abs=1e-4)


def test_attention_weights_match_the_model(studio: Any, reading: TextTrace) -> None:
    """Transposed or truncated weights would still draw a picture."""
    response = inside(studio, "attention", layer=1)
    shape = (response["heads"], response["tokens"], response["tokens"])
    weights = np.frombuffer(base64.b64decode(response["weights"]), dtype=np.uint8).reshape(shape)
    torch.testing.assert_close(torch.tensor(weights / 255.0).float(), reading.attention(1), atol=2.1e-3, rtol=0)


def test_the_logit_lens_and_nearest_embeddings_match_the_model(studio: Any, reading: TextTrace) -> None:
    rows = inside(studio, "lens")["rows"]
    assert len(rows) == 4
    assert [cell["id"] for cell in rows[1]] == [guess.token for guess in reading.lens(1)]
    response = inside(studio, "embeddings", token=reading.ids[3])
    assert [each["id"] for each in response["nearest"]] == [
        token for token, _ in nearest_tokens(reading.model, reading.ids[3])
    ]


def test_each_parameter_is_counted_once(studio: Any, reading: TextTrace) -> None:
    response = inside(studio, "parameters")
    total = sum(parameter.numel() for parameter in reading.model.parameters())
    assert sum(each["count"] for each in response["weights"]) == total
    assert response["positions"]["kind"] == "rotary"


def test_a_long_text_is_truncated(studio: Any) -> None:
    response = inside(studio, "surprisal", text="word " * 300)
    assert (len(response["tokens"]), response["num_truncated"] > 0) == (64, True)  # context length of this model


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "two/base", "text": ""}, 400),
        ({"model": "none", "text": "a"}, 404),
        ({"model": "two/base", "text": "a" * 20_001}, 400),
        ({"model": "two/base", "text": "a", "layer": -1}, 400),
        ({"text": "a"}, 400),
    ],
)
def test_invalid_inside_requests_are_rejected(studio: Any, body: dict[str, Any], status: int) -> None:
    with studio.http() as http:
        answer = http.post("/studio/api/inside/surprisal", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_two_models_are_loaded_at_a_time(studio: Any) -> None:
    """The least recently used model is evicted, because each loaded model takes memory."""
    with studio.http() as http:
        for name in ("one/base", "two/base", "alone", "alone"):
            body = {"model": name, "prompt": "The", "max_tokens": 2}
            answer = http.post("/v1/completions", json=body)
            assert (answer.status_code, answer.json()["model"]) == (200, name)
    assert studio.models.loaded_names() == ["two/base", "alone"]


def test_a_busy_model_is_not_evicted(studio: Any) -> None:
    """Eviction would cut off its answer, so a request for a third model gets a 503 response."""
    with studio.http() as http:
        body = {"prompt": "The", "max_tokens": 60, "stream": True, "n": 8}
        with (
            http.stream("POST", "/v1/completions", json=body | {"model": "one/base"}) as one,
            http.stream("POST", "/v1/completions", json=body | {"model": "two/base"}) as two,
        ):
            streams = [one.iter_lines(), two.iter_lines()]
            assert [next(stream)[:5] for stream in streams] == ["data:", "data:"]
            third = http.post("/v1/completions", json={"model": "alone", "prompt": "The", "max_tokens": 1})
            rest = ["\n".join(stream) for stream in streams]
    assert third.status_code in (200, 503)  # 200 if one of the answers is already complete
    assert all(text.rstrip().endswith("[DONE]") for text in rest)
    assert all("cancelled" not in text and "error" not in text for text in rest)


def test_a_classifier_returns_its_labels(tmp_path: Path, tokenizer: Tokenizer, tiny_model: Any) -> None:
    labels = tmp_path / "letters" / "labels"
    work = begin(labels, "finetune.classify", {}, {})
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    files = save_classifier(labels, model, ("praise", "blame"), pad_id=tokenizer.pad_id, bos_id=0, eos_id=0)
    work.finish({}, [*files, *tokenizer.save(labels)])
    workspace = Workspace(tmp_path, tmp_path / "recipes")
    models, jobs = StudioModels(workspace, lambda path: (open_model(path), None)), Jobs(workspace.runs_directory)
    app = build_studio(workspace, models, jobs, ServedApps(Catalog()))

    async def run_app(name: str, **body: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.post(f"/v1/apps/{name}", json={"model": "letters/labels", **body})

    result = asyncio.run(run_app("intent", inputs={"text": TEXT})).json()
    assert result["probabilities"].keys() == {"praise", "blame"}
    assert result["text"] == max(result["probabilities"], key=result["probabilities"].get)
    assert result["model"] == "letters/labels"
    refused = asyncio.run(run_app("poem", inputs={"topic": "spring"}))
    assert refused.status_code == 400 and "is a classifier" in refused.text
    jobs.close()
