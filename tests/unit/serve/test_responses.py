"""The Responses API works with OpenAI's client, complete and as a stream of typed events."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from groundup.model import Transformer
from groundup.serve import ServerLimits
from unit.serve.conftest import Connect

ASK: dict[str, Any] = {"model": "tiny", "input": "How is the weather?", "max_output_tokens": 20}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Return the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Sky(BaseModel):
    color: Literal["blue", "gray"]
    clouds: int = Field(ge=0, le=8)


def test_the_answer_is_the_answer_of_chat_completions(client: openai.OpenAI) -> None:
    done = client.responses.create(**ASK, extra_body={"seed": 3}, instructions="Be brief.", metadata={"a": "b"})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK["input"]}]
    chat = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, seed=3)  # type: ignore[arg-type]
    assert done.output_text == chat.choices[0].message.content
    assert done.usage is not None and chat.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (chat.usage.prompt_tokens, 20)
    assert done.status == "incomplete" and done.incomplete_details is not None
    assert done.incomplete_details.reason == "max_output_tokens"
    assert (done.object, done.model, done.metadata) == ("response", "tiny", {"a": "b"})


def test_a_conversation_of_items(client: openai.OpenAI) -> None:
    """Clients send the output of a response back as input."""
    first = client.responses.create(**ASK, extra_body={"seed": 3})
    items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": ASK["input"]}]}, *first.output]
    again = client.responses.create(**ASK | {"input": [*items, {"role": "user", "content": "Why?"}]})
    messages: list[Any] = [
        {"role": "user", "content": ASK["input"]},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "Why?"},
    ]
    chat = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    assert again.usage is not None and chat.usage is not None
    assert again.usage.input_tokens == chat.usage.prompt_tokens


def test_events_of_a_text(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ASK, extra_body={"seed": 3})
    events = list(client.responses.create(**ASK, extra_body={"seed": 3}, stream=True))
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))  # type: ignore[union-attr]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.incomplete"
    assert deltas == last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage


def test_a_tool_is_called_and_its_result_goes_back(serve_tools: Connect) -> None:
    qwen = serve_tools("Qwen")
    ask = ASK | {"tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 300}
    first = qwen.responses.parse(**ask, extra_body={"seed": 1})
    calls: list[Any] = [item for item in first.output if item.type == "function_call"]
    assert calls == first.output and first.status == "completed"
    assert all(set(call.parsed_arguments) == {"city"} for call in calls)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "blue"} for call in calls]
    history = [{"role": "user", "content": ASK["input"]}, *first.output, *results]
    again = qwen.responses.create(**ASK | {"input": history, "tools": [WEATHER], "tool_choice": "none"})
    assert [item.type for item in again.output] == ["message"]

    with qwen.responses.stream(**ask, extra_body={"seed": 1}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    made = [(call.name, call.arguments) for call in final.output if call.type == "function_call"]
    assert made == [(call.name, call.arguments) for call in calls]
    assert kinds.count("response.function_call_arguments.done") == len(calls)
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == len(calls)


def test_the_parser_of_the_client_validates_the_text(client: openai.OpenAI) -> None:
    for seed in range(2):
        done = client.responses.parse(**ASK | {"max_output_tokens": 60}, extra_body={"seed": seed}, text_format=Sky)
        assert isinstance(done.output_parsed, Sky)
    with client.responses.stream(**ASK | {"max_output_tokens": 60}, text_format=Sky) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Sky)


def test_parameters_without_effect_are_listed(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(
        **ASK, store=True, truncation="auto", include=["reasoning.encrypted_content"], reasoning={"effort": "low"}
    )
    assert set(raw.headers["X-Groundup-Ignored"].split(", ")) == {"store", "truncation", "include", "reasoning.effort"}
    harmless: dict[str, Any] = {"store": False, "truncation": "disabled", "parallel_tool_calls": True, "include": []}
    plain = client.responses.with_raw_response.create(**ASK, **harmless)
    assert "X-Groundup-Ignored" not in plain.headers
    assert json.loads(plain.text)["store"] is False


def test_a_failure_is_the_last_event(start: Any, long_model: Transformer) -> None:
    server = start(long_model, limits=ServerLimits(request_seconds=0.5))
    ask = ASK | {"max_output_tokens": 30_000, "stream": True, "temperature": 0}
    *_, last = server.client().responses.create(**ask)
    assert last.type == "response.failed" and last.response.status == "failed"
    assert "did not finish" in last.response.error.message


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "whole conversation"),
        ({"conversation": "conv_1"}, "conversation", "whole conversation"),
        ({"background": True}, "background", "not supported"),
        ({"input": []}, "input", "at least 1"),
        ({"input": 5}, "input", "array"),
        ({"input": [5]}, "input[0]", "supported types of items"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "supported types of items"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content", "text parts"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "missing"),
        ({"input": [{"type": "function_call_output", "output": "x", "call_id": "y"}]}, "input", "support tools"),
        ({"input": "word " * 900}, "input", "context"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", 'type "function"'),
        ({"tools": [WEATHER]}, "tools", "does not support tools"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}, "text.format", "not"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "schema"),
        ({"max_output_tokens": 1, "text": {"format": {"type": "json_object"}}}, "max_output_tokens", "may need"),
    ],
)
def test_invalid_parameters_are_400(client: openai.OpenAI, changes: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.responses.create(**ASK | changes)
    assert refused.value.param == param
