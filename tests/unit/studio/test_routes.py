"""The server of the page: what it tells, whom it refuses, and what browsers are told to forbid."""

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
from groundup.evaluation.inside import Reading, neighbours
from groundup.hub import load_model, save_classifier
from groundup.hub.resolve import open_model
from groundup.model import SequenceClassifier
from groundup.recipes import bundled
from groundup.studio import Home, Jobs, Shelf, build_studio
from groundup.tokenizer import Tokenizer

TEXT = "The import system is powerful enough. <script>alert(1)</script>"


@pytest.fixture(scope="module")
def reading(runs: Path, tokenizer: Tokenizer) -> Reading:
    """The same text, read without a server."""
    model = load_model(runs / "two" / "base", device="cpu")
    return Reading(model, [tokenizer.bos_id, *tokenizer.encode(TEXT)])


def inside(studio: Any, what: str, **more: Any) -> Any:
    with studio.http() as http:
        answer = http.post(f"/studio/api/inside/{what}", json={"model": "two/base", "text": TEXT} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "path",
    ["/studio/", "/studio/main.js", "/studio/api/home", "/v1/models", "/studio/nothing", "/studio/page/report/one"],
)
def test_every_answer_forbids_what_a_page_does_not_need(studio: Any, path: str) -> None:
    """Were one forgotten, text of a model that slipped into it could run."""
    with studio.http() as http:
        headers = http.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert not [name for name in headers if name.startswith("access-control-")]


def test_a_framed_page_is_of_an_origin_of_its_own(studio: Any) -> None:
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
        "/studio/page/xray/one/base",
        "/studio/page/card/one/base",
        "/studio/page/report/..%2f..",
        "/studio/page/secret/one",
        "/studio/api/stage?place=../../etc",
        "/studio/api/stage",
        "/studio/api/search?place=one/none&text=a",
    ],
)
def test_what_is_not_there_is_refused_in_the_form_of_the_api(studio: Any, path: str) -> None:
    with studio.http() as http:
        answer = http.get(path)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]


def test_what_acts_wants_json_that_no_other_site_can_send(studio: Any) -> None:
    """A page of elsewhere can post a form here without asking; JSON it cannot."""
    for path in ("start", "stop", "inside/read"):
        with studio.http() as http:
            kind = {"Content-Type": "text/plain"}
            assert http.post(f"/studio/api/{path}", content='{"run": "one"}', headers=kind).status_code == 415
            assert http.get(f"/studio/api/{path}").status_code == 405


def test_only_recipes_that_were_found_are_started(studio: Any) -> None:
    with studio.http() as http:
        for recipe in ("../../etc/passwd", "/etc/passwd", "none.toml"):
            answer = http.post("/studio/api/start", json={"recipe": recipe, "name": "x"})
            assert answer.status_code == 400
    assert studio.jobs.told("x") is None


def test_home_tells_runs_models_and_recipes(studio: Any) -> None:
    with studio.http() as http:
        home = http.get("/studio/api/home").json()
    assert {run["name"] for run in home["runs"]} == {"one", "two"}
    assert [model["name"] for model in home["models"]] == ["one/base", "two/base", "alone"]
    assert [recipe["file"] for recipe in home["recipes"]] == ["bad.toml", *bundled(), "one/recipe.toml"]
    assert {"file": "quickstart", "name": "quickstart"} in home["recipes"]
    assert "directory" not in home["runs"][0]["stages"][0]  # where things lie is not the page's business


def test_surprise_is_that_of_the_model_and_text_stays_text(studio: Any, reading: Reading) -> None:
    told = inside(studio, "read")
    assert [token["id"] for token in told["tokens"]] == list(reading.ids)
    assert "".join(token["text"] for token in told["tokens"][1:]) == TEXT
    nats = [surprise.nats for surprise in reading.surprises()]
    assert [token["nats"] for token in told["tokens"][1:]] == pytest.approx(nats, abs=1e-4)
    assert told["bits_per_byte"] == pytest.approx(sum(nats) / np.log(2) / len(TEXT.encode()), rel=1e-4)
    assert told["looks"][2][1][1] == pytest.approx(reading.looks[2][1].first, abs=1e-4)


def test_attention_arrives_as_it_was_computed(studio: Any, reading: Reading) -> None:
    """Transposed or cut, it still draws a picture."""
    told = inside(studio, "attention", layer=1)
    shape = (told["heads"], told["tokens"], told["tokens"])
    weights = np.frombuffer(base64.b64decode(told["weights"]), dtype=np.uint8).reshape(shape)
    torch.testing.assert_close(torch.tensor(weights / 255.0).float(), reading.attention(1), atol=2.1e-3, rtol=0)


def test_the_lens_and_neighbours_are_those_of_the_model(studio: Any, reading: Reading) -> None:
    rows = inside(studio, "lens")["rows"]
    assert len(rows) == 4
    assert [cell["id"] for cell in rows[1]] == [guess.token for guess in reading.lens(1)]
    told = inside(studio, "neighbours", token=reading.ids[3])
    assert [each["id"] for each in told["neighbours"]] == [
        token for token, _ in neighbours(reading.model, reading.ids[3])
    ]


def test_the_map_counts_every_weight_once(studio: Any, reading: Reading) -> None:
    told = inside(studio, "anatomy")
    total = sum(parameter.numel() for parameter in reading.model.parameters())
    assert sum(each["count"] for each in told["weights"]) == total
    assert told["positions"]["kind"] == "rotary"


def test_a_long_text_is_cut_and_says_so(studio: Any) -> None:
    told = inside(studio, "read", text="word " * 300)
    assert (len(told["tokens"]), told["left_out"] > 0) == (64, True)  # this model's context


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
def test_a_wrong_look_is_refused(studio: Any, body: dict[str, Any], status: int) -> None:
    with studio.http() as http:
        answer = http.post("/studio/api/inside/read", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_models_answer_by_name_and_two_are_open_at_a_time(studio: Any) -> None:
    """Each one that stayed open would keep its memory; the one asked for last must not be the one that goes."""
    with studio.http() as http:
        for name in ("one/base", "two/base", "alone", "alone"):
            body = {"model": name, "prompt": "The", "max_tokens": 2}
            answer = http.post("/v1/completions", json=body)
            assert (answer.status_code, answer.json()["model"]) == (200, name)
    assert studio.shelf.opened() == ["two/base", "alone"]


def test_a_model_that_is_answering_is_not_put_back(studio: Any) -> None:
    """A third one would otherwise cut off an answer in its middle; whoever wants it is told to wait."""
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
    assert third.status_code in (200, 503)  # the two may have ended meanwhile
    assert all(text.rstrip().endswith("[DONE]") for text in rest)
    assert all("cancelled" not in text and "error" not in text for text in rest)


def test_a_classifier_of_the_home_gives_its_labels(tmp_path: Path, tokenizer: Tokenizer, tiny_model: Any) -> None:
    labels = tmp_path / "letters" / "labels"
    work = begin(labels, "finetune.classify", {}, {})
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    files = save_classifier(labels, model, ("praise", "blame"), pad_id=tokenizer.pad_id, bos_id=0, eos_id=0)
    work.finish({}, [*files, *tokenizer.save(labels)])
    home = Home(tmp_path, tmp_path / "recipes")
    shelf, jobs = Shelf(home, lambda path: (open_model(path), None)), Jobs(home.runs_directory)
    app = build_studio(home, shelf, jobs, ServedApps(Catalog()))

    async def asked(name: str, **body: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.post(f"/v1/apps/{name}", json={"model": "letters/labels", **body})

    said = asyncio.run(asked("intent", inputs={"text": TEXT})).json()
    assert said["probabilities"].keys() == {"praise", "blame"}
    assert said["text"] == max(said["probabilities"], key=said["probabilities"].get)
    assert said["model"] == "letters/labels"
    refused = asyncio.run(asked("poem", inputs={"topic": "spring"}))
    assert refused.status_code == 400 and "a classifier gives labels" in refused.text
    jobs.close()
