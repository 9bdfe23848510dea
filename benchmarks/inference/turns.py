"""`python -m benchmarks.inference.turns MODEL OTHER`: tokens that each turn of a chat computes; one JSON object last.

A chat of ten turns runs through the API of the server, with the chat template of MODEL. After every third turn, MODEL
is unloaded, because OTHER answers a request and only one model may be loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from groundup.core.console import Console
from groundup.core.errors import GroundupError
from groundup.inference.runner import make_pool
from groundup.inference.worker import Worker
from groundup.serve import build_app
from groundup.serve.models.cache import ModelCache
from groundup.serve.models.sources import Opening, open_sources
from groundup.serve.openai.errors import ApiError, cannot_load

_SYSTEM = "You are the assistant of a small library. Answer in one or two sentences."
_QUESTIONS = (
    "When do you open?",
    "Which books about whales do you have?",
    "Who wrote Moby Dick?",
    "Is it long?",
    "Can I borrow it for a month?",
    "What does a late return cost?",
    "Do you have electronic books?",
    "Where are you?",
    "Is there a place for my bicycle?",
    "Thank you, goodbye!",
)


async def measure_turns(models: ModelCache, name: str, other: str, max_tokens: int) -> list[dict[str, int]]:
    """Return the prompt tokens, new tokens, tokens of the previous answer, and computed tokens of each turn.

    Args:
        models: Models of the server, of which one may be loaded at a time.
        name: Name of the model that answers.
        other: Name of the model that answers a request after every third turn.
        max_tokens: Maximum number of tokens of an answer.
    """
    transport = httpx.ASGITransport(app=build_app(models))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=600) as client:

        async def ask(model: str, messages: list[dict[str, str]]) -> dict[str, Any]:
            body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
            answer = await client.post("/v1/chat/completions", json=body)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        messages = [{"role": "system", "content": _SYSTEM}]
        turns: list[dict[str, int]] = []
        known = answered = 0
        for turn, question in enumerate(_QUESTIONS):
            messages.append({"role": "user", "content": question})
            answer = await ask(name, messages)
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
            prompt = answer["usage"]["prompt_tokens"]
            computed = prompt - answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            new = prompt - known - answered
            turns.append({"prompt": prompt, "new": new, "previous_answer": answered, "computed": computed})
            known, answered = prompt, answer["usage"]["completion_tokens"]
            if turn % 3 == 2:
                await ask(other, messages[-2:-1])
        return turns


def main() -> None:
    """Measure a chat and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="directory of a chat model")
    parser.add_argument("other", help="directory of another chat model")
    parser.add_argument("--output-tokens", type=int, default=48, help="maximum number of tokens of an answer [48]")
    options = parser.parse_args()
    paths = (f"model={options.model}", f"other={options.other}")
    sources = open_sources(paths, (), None, Opening(None, None, Console()))[1]

    def explain(name: str, error: GroundupError) -> ApiError:
        return cannot_load(name, error, warn=print)

    async def run() -> list[dict[str, int]]:
        models = ModelCache(sources, Worker(8, 64), make_pool(), max_models=1, explain=explain)
        try:
            return await measure_turns(models, "model", "other", options.output_tokens)
        finally:
            models.close()

    turns = asyncio.run(run())
    allowed = [turn["new"] + turn["previous_answer"] for turn in turns]
    excess = max(turn["computed"] - limit for turn, limit in zip(turns, allowed, strict=True))
    print(json.dumps({"model": Path(options.model).name, "turns": turns, "max_excess": excess}))


if __name__ == "__main__":
    main()
