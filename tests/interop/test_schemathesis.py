"""schemathesis generates requests from the OpenAPI document, and finds no server error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from groundup.apps import Catalog
from groundup.apps.serving import ServedApps
from groundup.inference import Engine
from groundup.model import Transformer
from groundup.serve import ServedModel, ServedModels, Server, application_routes, bind, build_app, url_of
from groundup.serve.http.middleware import with_middleware
from groundup.serve.metrics import Metrics
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

pytestmark = pytest.mark.interop
schemathesis = pytest.importorskip("schemathesis", reason="pip install '.[interop]'")


@pytest.fixture(scope="module")
def api(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Iterator[Any]:
    """Return the schema of a running server. Its model is named "0", which is a name that schemathesis generates."""
    model, ready, metrics = tiny_model(tokenizer.vocab_size, context_length=128), threading.Event(), Metrics()
    with Engine(model, tokenizer) as engine, bind("127.0.0.1", 0) as bound:
        models = ServedModels([ServedModel("0", engine, ChatTemplate(tokenizer), created=1)])
        app = build_app(models, routes=[*application_routes(ServedApps(Catalog()), models), metrics.route])
        guarded = with_middleware(app, metrics, api_key=None, loopback_only=True)
        server = Server(guarded, grace_seconds=1, abort=engine.close, on_ready=ready.set)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        assert ready.wait(30)
        try:
            yield schemathesis.openapi.from_url(f"{url_of(bound)}/openapi.json")
        finally:
            server.should_exit = True
            thread.join(30)


def test_no_request_causes_a_server_error(api: Any) -> None:
    operations = [each.ok() for each in api.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/chat/completions", "/v1/completions", "/metrics"}
    for operation in operations:
        check(operation)


def check(operation: Any) -> None:
    """Call one endpoint with generated requests."""

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "0"  # other names end at status 404
        response = case.call(timeout=60)
        assert response.status_code < 500, response.text
        if response.status_code >= 400 and response.headers.get("content-type") == "application/json":
            assert response.json()["error"]["message"]

    call()
