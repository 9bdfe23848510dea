"""A chat of ten turns with SmolLM2: a turn computes at most its new tokens and the previous answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from groundup.kernels.native_library import native_library

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine"),
]
QUESTIONS = (
    "When do you open?",
    "Which books about whales do you have?",
    "Who wrote Moby Dick?",
    "Is it long?",
    "Can I borrow it for a month?",
    "What does a late return cost?",
    "Do you have e-books?",
    "Where are you?",
    "Is there a place for my bicycle?",
    "Thank you, goodbye!",
)


@pytest.fixture
def client(smollm2: Path, our_model: Path) -> Iterator[openai.OpenAI]:
    """A server with two models, of which only one may be loaded."""
    models = [f"smollm2={smollm2}", f"other={our_model}"]
    command = [sys.executable, "-m", "groundup", "serve", *models, "--lazy", "--set", "max_models=1"]
    with subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        finally:
            process.send_signal(signal.SIGINT)


def test_a_turn_computes_its_new_tokens_and_the_previous_answer(client: openai.OpenAI) -> None:
    """The chat's model is unloaded whenever the other one answers."""
    messages: list[Any] = [{"role": "system", "content": "You are the assistant of a small library."}]
    known = answered = 0
    for turn, question in enumerate(QUESTIONS):
        messages.append({"role": "user", "content": question})
        done = client.chat.completions.create(model="smollm2", messages=messages, max_tokens=32, temperature=0)
        messages.append({"role": "assistant", "content": done.choices[0].message.content})
        assert done.usage is not None and done.usage.prompt_tokens_details is not None
        prompt = done.usage.prompt_tokens
        computed = prompt - (done.usage.prompt_tokens_details.cached_tokens or 0)
        new = prompt - known - answered
        assert computed <= max(new + answered, new + 15), f"turn {turn}"
        known, answered = prompt, done.usage.completion_tokens
        if turn % 3 == 2:
            client.completions.create(model="other", prompt="The", max_tokens=1)
            assert {model.id for model in client.models.list() if (model.model_extra or {})["loaded"]} == {"other"}
