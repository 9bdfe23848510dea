"""OpenAI's client gets the log-probabilities and embeddings that transformers computes for SmolLM2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

pytestmark = pytest.mark.interop
transformers = pytest.importorskip("transformers")
TEXT = "The Apollo 11 mission landed on the Moon in July 1969. Größe → 🙂 naïve café."


@pytest.fixture(scope="module")
def client(serve: Callable[..., str], smollm2: Path) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{serve(smollm2, 'smollm2')}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(smollm2)


def test_log_probabilities_of_a_prompt(client: openai.OpenAI, model: Any, tokenizer: Any) -> None:
    ids = tokenizer(TEXT)["input_ids"]
    with torch.inference_mode():
        logprobs_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    for prompt in (TEXT, ids):
        made = client.completions.create(model="smollm2", prompt=prompt, echo=True, max_tokens=0, logprobs=5)
        found: Any = made.choices[0].logprobs
        assert made.choices[0].text == TEXT
        expected = [float(logprobs_TV[i, token]) for i, token in enumerate(ids[1:])]
        assert found.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
        for i, top in enumerate(found.top_logprobs[1:]):
            best = logprobs_TV[i].topk(5).values.tolist()
            assert sorted(top.values(), reverse=True)[:5] == pytest.approx(best, abs=1e-4)


def test_log_probabilities_of_a_chat(client: openai.OpenAI, model: Any, tokenizer: Any) -> None:
    """Greedy tokens and their log-probabilities, in a stream."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    stream = client.chat.completions.create(
        model="smollm2",
        messages=messages,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=12,
        logprobs=True,
        top_logprobs=3,
        stream=True,
    )
    parts = [chunk.choices[0].logprobs for chunk in stream if chunk.choices and chunk.choices[0].logprobs]
    found = [token for part in parts for token in part.content or []]
    assert len(found) > 5
    for token in found:
        with torch.inference_mode():
            logprobs_V = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        best = logprobs_V.topk(3)
        assert bytes(token.bytes or []).decode() == tokenizer.decode([int(best.indices[0])])
        assert [each.logprob for each in token.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-3)
        ids.append(int(best.indices[0]))


def test_embeddings(client: openai.OpenAI, model: Any, tokenizer: Any) -> None:
    """They equal the mean of the last hidden states, and similar texts have similar embeddings."""
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by 2 % in March."]
    made = client.embeddings.create(model="smollm2", input=texts)
    vectors = torch.tensor([each.embedding for each in made.data])
    for text, vector in zip(texts, vectors, strict=True):
        with torch.inference_mode():
            states = model(torch.tensor([tokenizer(text)["input_ids"]]), output_hidden_states=True).hidden_states[-1]
        mean = states[0].mean(dim=0)
        torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
