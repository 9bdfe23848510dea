"""Tool calls work with OpenAI's client. The grammar makes even the calls of random weights valid."""

from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, Field

from unit.serve.conftest import TOOL_MODELS, Connect


class Weather(BaseModel):
    """Return the weather in a city."""

    city: str = Field(max_length=8)
    unit: Literal["C", "F"]


def function(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    described = {"name": name, "description": f"Call {name}."} | more
    return {"type": "function", "function": described if parameters is None else described | {"parameters": parameters}}


ADD = {"type": "object", "properties": {n: {"type": "integer", "maximum": 999, "minimum": 0} for n in "ab"}}
TOOLS = [function("weather", Weather.model_json_schema()), function("add", ADD | {"required": ["a", "b"]})]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
QUESTION = {"role": "user", "content": "How is the weather?"}
ASK: dict[str, Any] = {"model": "tiny", "messages": [QUESTION], "max_tokens": 300, "tools": TOOLS}


def check(calls: Any) -> list[tuple[str, Any]]:
    """Validate the arguments of calls, and return the calls."""
    made = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
    for name, arguments in made:
        jsonschema.validate(arguments, SCHEMAS[name])
    assert len({call.id for call in calls}) == len(calls)
    return made


def joined(chunks: list[ChatCompletionChunk]) -> tuple[str, list[tuple[str, str]], str]:
    """Return the text, the calls and the finish reason of a stream."""
    text, reason = "", ""
    calls: list[list[str]] = []
    for chunk in chunks:
        for choice in chunk.choices:
            assert not reason, "a delta came after the finish reason"
            text += choice.delta.content or ""
            assert not (choice.delta.content and calls), "text came after a call"
            for part in choice.delta.tool_calls or []:
                assert part.function is not None
                if part.index == len(calls):
                    assert part.id and part.type == "function" and part.function.name
                    calls.append([part.function.name, ""])
                assert part.index == len(calls) - 1
                calls[-1][1] += part.function.arguments or ""
            reason = choice.finish_reason or reason
    return text, [(name, arguments) for name, arguments in calls], reason


@pytest.mark.parametrize("name", TOOL_MODELS)
def test_required_calls_in_each_format(serve_tools: Connect, name: str) -> None:
    client = serve_tools(name)
    for seed in range(2):
        ask = ASK | {"seed": seed, "tool_choice": "required", "max_tokens": 120}
        [choice] = client.chat.completions.create(**ask).choices
        calls = choice.message.tool_calls or []
        assert check(calls) and choice.finish_reason in ("tool_calls", "length") and choice.message.content is None
        text, streamed, reason = joined(list(client.chat.completions.create(**ask, stream=True)))
        assert (text, reason) == ("", choice.finish_reason)
        assert streamed == [(call.function.name, call.function.arguments) for call in calls]


@pytest.mark.parametrize("name", ["Qwen", "Qwen without added tokens", "Mistral"])
def test_a_result_goes_back_to_the_model(serve_tools: Connect, name: str) -> None:
    """Clients send the message of the response back without a change, also after several calls."""
    client = serve_tools(name)
    seeds = (s for s in range(50))
    for seed in seeds:
        first = client.chat.completions.create(**ASK, seed=seed, tool_choice="required").choices[0].message
        assert first.tool_calls
        results = [{"role": "tool", "tool_call_id": call.id, "content": "4"} for call in first.tool_calls]
        messages = [QUESTION, first, *results]
        again = client.chat.completions.create(**ASK | {"messages": messages, "max_tokens": 5, "tool_choice": "none"})
        assert again.choices[0].message.tool_calls is None and again.choices[0].finish_reason in ("length", "stop")
        if len(first.tool_calls) > 1:
            return
    raise AssertionError("no answer had several calls")


def test_text_and_then_calls(qwen: openai.OpenAI) -> None:
    """With "auto", the text is not constrained until a call begins. The bias makes random weights start a call."""
    ends = set()
    for seed in range(4):
        ask = ASK | {"seed": seed, "max_tokens": 80, "parallel_tool_calls": False}
        ask |= {"logit_bias": {"705": 3}}  # 705 is the token <tool_call>
        [choice] = qwen.chat.completions.create(**ask).choices
        text, streamed, reason = joined(list(qwen.chat.completions.create(**ask, stream=True)))
        calls = choice.message.tool_calls or []
        assert (text or None, reason) == (choice.message.content or None, choice.finish_reason)
        assert streamed == [(call.function.name, call.function.arguments) for call in calls]
        assert ("<tool_call>" not in text and text == text.rstrip()) or not calls
        check(calls)
        ends.add((bool(text), bool(calls), reason))
    assert (True, True, "tool_calls") in ends, ends


def test_choices_of_tools(qwen: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    [choice] = qwen.chat.completions.create(**ASK, seed=1, tool_choice=named).choices
    assert [name for name, _ in check(choice.message.tool_calls)] == ["add"]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    [choice] = qwen.chat.completions.create(**ASK, seed=1, tool_choice=allowed).choices
    assert {name for name, _ in check(choice.message.tool_calls)} == {"add"}
    for seed in range(4):
        one = qwen.chat.completions.create(**ASK, seed=seed, tool_choice="required", parallel_tool_calls=False)
        assert len(check(one.choices[0].message.tool_calls)) == 1 and one.choices[0].finish_reason == "tool_calls"


def test_the_parser_of_the_client_validates_calls_and_answers(qwen: openai.OpenAI) -> None:
    """`parse` sends strict functions, which the client builds from pydantic models."""
    tools = [openai.pydantic_function_tool(Weather, name="weather")]
    done = qwen.chat.completions.parse(**ASK | {"tools": tools}, seed=2, tool_choice="required")
    for call in done.choices[0].message.tool_calls or []:
        assert isinstance(call.function.parsed_arguments, Weather)
    answers = [
        qwen.chat.completions.parse(**ASK | {"tools": tools}, seed=seed, response_format=Weather).choices[0].message
        for seed in range(4)
    ]
    assert all(isinstance(answer.parsed, Weather) or answer.tool_calls for answer in answers)
    assert any(answer.parsed for answer in answers)


def test_a_token_limit_completes_a_call(qwen: openai.OpenAI) -> None:
    """A call that the limit cuts is valid JSON, and its finish reason is "length" as for other answers."""
    items = {"type": "array", "items": {"type": "integer"}, "minItems": 5}
    tools = [function("sum", {"type": "object", "properties": {"items": items}, "required": ["items"]})]
    ask = ASK | {"tools": tools, "tool_choice": "required", "max_tokens": 60}
    choices = [qwen.chat.completions.create(**ask, seed=seed).choices[0] for seed in range(4)]
    for choice in choices:
        for call in choice.message.tool_calls or []:
            assert len(json.loads(call.function.arguments)["items"]) >= 5
    assert "length" in {choice.finish_reason for choice in choices}


def calling(arguments: Any, **call: Any) -> dict[str, Any]:
    made = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": arguments}} | call
    return {"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": [made]}]}


NOT = {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]", 'type "function"'),
        ({"tools": [function("a b")]}, "tools[0].function.name", "a b"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools", "same name"),
        ({"tools": [function(f"f{n}") for n in range(129)]}, "tools", "128"),
        ({"tools": [function("f", {"type": "array"})]}, "tools", "'f'.*JSON object"),
        ({"tools": [function("f", NOT, strict=True)]}, "tools", "'f'.*not"),
        ({"tools": [function("f", {"$ref": "http://x"})]}, "tools", "'f'.*references"),
        ({"tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice", "'sub'"),
        ({"tool_choice": "all"}, "tool_choice", "auto"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "requires tools"),
        ({"stop": "x"}, "stop", "cut a call"),
        ({"max_tokens": 5, "tool_choice": "required"}, "max_tokens", "may need"),
        (calling("{'a': 1}"), "messages[1].tool_calls[0].function.arguments", "JSON object"),
        (calling("[]"), "messages[1].tool_calls[0].function.arguments", "JSON object"),
        (calling("[" * 100_000), "messages[1].tool_calls[0].function.arguments", "JSON object"),
        (calling('{"a":' * 100 + "1" + "}" * 100), "messages[1].tool_calls[0].function.arguments", "64 levels"),
        (calling("{}", id=None), "messages[1].tool_calls[0].id", "missing"),
        ({"messages": [calling("{}")["messages"][1] | {"role": "user"}]}, "messages[0].tool_calls", "assistant"),
    ],
)
def test_invalid_tools_are_400(qwen: openai.OpenAI, changes: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        qwen.chat.completions.create(**ASK | {"max_tokens": 50} | changes)
    assert refused.value.param == param


def test_unsupported_keywords_of_other_functions_are_ignored(qwen: openai.OpenAI) -> None:
    """Agents send schemas with keywords that a grammar cannot express. Only strict functions need all keywords."""
    ask = ASK | {"tools": [function("f", NOT | {"required": ["a"]})], "tool_choice": "required"}
    [choice] = qwen.chat.completions.create(**ask, seed=0).choices
    assert choice.message.tool_calls
    assert all(set(json.loads(call.function.arguments)) == {"a"} for call in choice.message.tool_calls)


def test_models_without_tools_refuse_them(client: openai.OpenAI) -> None:
    for changes in ({}, calling("{}") | {"tools": []}):
        with pytest.raises(openai.BadRequestError, match="does not support tools") as refused:
            client.chat.completions.create(**ASK | {"max_tokens": 5} | changes)
        assert refused.value.code == "tools_not_supported"


def test_llama_makes_one_call(serve_tools: Connect) -> None:
    llama = serve_tools("Llama")
    for seed in range(4):
        [choice] = llama.chat.completions.create(**ASK, seed=seed, tool_choice="required").choices
        assert len(check(choice.message.tool_calls)) == 1
    with pytest.raises(openai.BadRequestError, match="look like a call"):
        llama.chat.completions.create(**ASK, response_format={"type": "json_object"})
