"""The score by which the best weights are selected follows the answers that the model generates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from groundup.core.errors import DataError
from groundup.core.types import Example, Message
from groundup.evaluation.metrics import rouge
from groundup.evaluation.selection import answer_score
from groundup.inference import Engine, GenerationRequest, Sampling
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

WORDS = 12  # Tokens per answer.


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size, context_length=256)


def answered(model: Transformer, tokenizer: Tokenizer, prompts: list[str]) -> list[Example]:
    """Questions with the greedy answers of the engine."""
    template = ChatTemplate(tokenizer)
    examples = []
    with Engine(model, tokenizer, stop_ids=template.stop_ids) as engine:
        for prompt in prompts:
            question = Message("user", prompt)
            ids = tuple(template.encode([question], add_generation_prompt=True))
            request = GenerationRequest(prompt=ids, is_reply=True, sampling=Sampling(temperature=0), max_tokens=WORDS)
            examples.append(Example((question, Message("assistant", engine.complete(request).text.strip()))))
    return examples


def test_the_score_is_of_greedy_answers(model: Transformer, tokenizer: Tokenizer, real_documents: list[str]) -> None:
    """The score must be of the answers that users will get."""
    prompts = [" ".join(text.split()[:6]) for text in real_documents[:8]]
    own = answered(model, tokenizer, prompts)
    foreign = [Example((e.messages[0], Message("assistant", "no such words"))) for e in own]
    template = ChatTemplate(tokenizer)
    # The reference answers end where the generated ones were truncated, so ROUGE counts all of the generated text.
    assert answer_score("rouge", model, tokenizer, template, own)() < 0.5
    assert answer_score("rouge", model, tokenizer, template, foreign)() == pytest.approx(1)
    half = answer_score("rouge", model, tokenizer, template, own[:4] + foreign[4:])()
    assert answer_score("rouge", model, tokenizer, template, own)() < half < 1
    assert rouge(["a b"], ["a b"])[0].estimate == 100  # Metrics are 0 to 100, from which the score is computed.


def test_the_score_follows_the_weights(model: Transformer, tokenizer: Tokenizer, real_documents: list[str]) -> None:
    """The score is computed repeatedly for one model, and must not cache the first answers."""
    examples = answered(model, tokenizer, [" ".join(text.split()[:6]) for text in real_documents[:4]])
    score = answer_score("chrf", model, tokenizer, ChatTemplate(tokenizer), examples)
    before, kept = score(), model.lm_head.weight.clone()
    try:
        model.lm_head.weight.copy_(kept.roll(7, 0))
        assert score() > before
    finally:
        model.lm_head.weight.copy_(kept)
    assert score() == before
    assert torch.equal(model.lm_head.weight, kept)


@pytest.mark.parametrize("by", ["loss", "exact"])
def test_only_too_long_examples_are_an_error(model: Transformer, tokenizer: Tokenizer, by: str) -> None:
    long = [Example((Message("user", "word " * 300), Message("assistant", "yes")))]
    with pytest.raises(DataError, match="none fits"):
        answer_score(by, model, tokenizer, ChatTemplate(tokenizer), long)  # type: ignore[arg-type]
