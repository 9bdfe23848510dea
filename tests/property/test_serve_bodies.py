"""Any request body results in a generation request or in an error in OpenAI's format, but never in a server error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.serve.openai.body import read_body
from groundup.serve.openai.chat_schema import ChatBody
from groundup.serve.openai.errors import ApiError
from groundup.serve.openai.response_schema import ResponseBody
from groundup.serve.openai.schema import CompletionBody, GenerationBody

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
parameters = st.sampled_from(
    sorted({*ChatBody.model_fields, *CompletionBody.model_fields, *ResponseBody.model_fields, "other", ""})
)
bodies = st.dictionaries(parameters, anything, max_size=5)


@pytest.mark.parametrize("kind", [ChatBody, CompletionBody, ResponseBody])
@given(body=bodies)
def test_any_parameters(kind: type[GenerationBody], body: dict[str, Any]) -> None:
    valid = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    if kind is CompletionBody:
        valid = {"model": "m", "prompt": "x"}
    if kind is ResponseBody:
        valid = {"model": "m", "input": "x"}
    check(kind, json.dumps(valid | body).encode())


@pytest.mark.parametrize("kind", [ChatBody, CompletionBody, ResponseBody])
@given(body=st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_and_any_json(kind: type[GenerationBody], body: bytes) -> None:
    check(kind, body)


def check(kind: type[GenerationBody], body: bytes) -> None:
    try:
        read = read_body(kind, body)
    except ApiError as refused:
        assert refused.status == 400
        error = refused.body["error"]
        assert error["message"] and error["code"] and error["type"] == "invalid_request_error"
        assert len(error["message"]) < 2000, "the error must not contain a long value in full"
    else:
        assert 0 <= read.temperature <= 2 and read.n >= 1 and (read.limit is None or read.limit >= 1)
