"""Constrained outputs work with OpenAI's client, and with the parameters of vLLM and llama.cpp."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

QUESTION = {"role": "user", "content": "Which keyword begins a loop?"}
ASK: dict[str, Any] = {"model": "tiny", "messages": [QUESTION], "max_tokens": 300, "temperature": 1.0}


class Option(BaseModel):
    text: str = Field(min_length=1, max_length=10)
    right: bool


class Question(BaseModel):
    question: str = Field(max_length=20)
    level: Literal["easy", "hard"]
    options: list[Option] = Field(min_length=2, max_length=3)


@pytest.mark.parametrize("seed", range(4))
def test_the_parser_of_the_client_validates_the_output(client: openai.OpenAI, seed: int) -> None:
    """The client sends a JSON schema from pydantic, with $defs, titles and strict, and validates the answer."""
    done = client.chat.completions.parse(**ASK, seed=seed, response_format=Question)
    [choice] = done.choices
    assert isinstance(choice.message.parsed, Question)
    assert choice.finish_reason == "stop"


def test_a_json_object_and_its_stream(client: openai.OpenAI) -> None:
    ask = ASK | {"max_tokens": 40, "seed": 3, "response_format": {"type": "json_object"}}
    whole = client.chat.completions.create(**ask).choices[0]
    assert isinstance(json.loads(whole.message.content or ""), dict)
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    assert len(chunks) > 2, "the JSON must be streamed in several chunks"


def test_json_that_reaches_max_tokens_is_closed(client: openai.OpenAI) -> None:
    """If max_tokens ends the output, the content is still valid JSON, and the finish reason is "length"."""
    form = {"type": "json_schema", "json_schema": {"name": "q", "schema": Question.model_json_schema()}}
    choice = client.chat.completions.create(**ASK | {"max_tokens": 70, "seed": 1, "response_format": form}).choices[0]
    Question.model_validate_json(choice.message.content or "")
    assert choice.finish_reason == "length"


def test_all_choices_are_valid(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "q", "schema": Question.model_json_schema(), "strict": True}}
    done = client.chat.completions.create(**ASK, n=3, seed=1, response_format=form)
    assert len({choice.message.content for choice in done.choices}) == 3
    for choice in done.choices:
        Question.model_validate_json(choice.message.content or "")


DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
SUM = 'root ::= [0-9]+ ("+" [0-9]+)*'


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"structured_outputs": {"regex": DAY}}, DAY),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"structured_outputs": {"grammar": SUM}}, r"\d+(\+\d+)*"),
        ({"structured_outputs": {"json": {"enum": ["yes", 1]}}}, '"yes"|1'),
        ({"structured_outputs": {"json_object": True}}, r"\{.*\}"),
        ({"guided_regex": DAY}, DAY),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_grammar": SUM}, r"\d+(\+\d+)*"),
        ({"guided_json": '{"enum": ["yes", 1]}'}, '"yes"|1'),
        ({"grammar": SUM}, r"\d+(\+\d+)*"),
        ({"json_schema": {"enum": ["yes", 1]}}, '"yes"|1'),
        ({"response_format": {"type": "json_object", "schema": {"enum": ["yes", 1]}}}, '"yes"|1'),
    ],
)
def test_parameters_of_other_servers(client: openai.OpenAI, constraint: dict[str, Any], pattern: str) -> None:
    """The output matches on both endpoints, at a limit that ends most outputs early."""
    limits: dict[str, Any] = {"model": "tiny", "max_tokens": 12, "temperature": 1.0, "n": 4, "extra_body": constraint}
    chat = client.chat.completions.create(**limits, messages=[QUESTION])
    texts = [choice.message.content or "" for choice in chat.choices]
    texts += [choice.text for choice in client.completions.create(**limits, prompt="The answer is").choices]
    for text in texts:
        assert re.fullmatch(pattern, text, re.DOTALL), text
