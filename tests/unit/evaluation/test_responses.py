"""Loss of answers: its definition, and a fair comparison with the base model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.core.errors import DataError, FormatError
from groundup.core.types import Example, Message
from groundup.evaluation.comparisons.base_model import best_format, compare_with_base, greedy_answers
from groundup.evaluation.prompt_search import FewShotPrompt
from groundup.evaluation.responses import response_tokens, score_responses
from groundup.inference.prompting import (
    PLAIN_LAYOUTS,
    ChatFormat,
    PromptFormat,
    Renderer,
    plain_formats,
)
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size, context_length=256)


@pytest.fixture(scope="module")
def examples(real_documents: list[str]) -> list[Example]:
    """Questions and answers of different lengths from real prose, some with two turns or a system message."""
    made = []
    for number, text in enumerate(real_documents[:24]):
        words = text.split()
        messages = [Message("user", " ".join(words[:4])), Message("assistant", " ".join(words[4 : 8 + number % 5]))]
        if number % 3 == 0:
            messages += [Message("user", "And then?"), Message("assistant", " ".join(words[20:24]))]
        if number % 4 == 0:
            messages.insert(0, Message("system", "Answer in prose."))
        made.append(Example(tuple(messages)))
    return made


FORMATS = ["chat", *range(len(PLAIN_LAYOUTS))]


def prompt_format(which: str | int, tokenizer: Tokenizer) -> PromptFormat:
    return ChatFormat(ChatTemplate(tokenizer)) if which == "chat" else plain_formats(tokenizer)[int(which)]


def renderer(which: str | int, tokenizer: Tokenizer) -> Renderer:
    return prompt_format(which, tokenizer).render


@pytest.mark.parametrize("which", FORMATS)
def test_only_the_text_of_answers_is_scored(which: str | int, tokenizer: Tokenizer, examples: list[Example]) -> None:
    """Scores of prompts, headers or turn ends would favor models that know the format."""
    render = renderer(which, tokenizer)
    for example in examples:
        rendered = render(example)
        scored = [i for i, is_scored in zip(rendered.ids, rendered.scored, strict=True) if is_scored]
        words = [message.content for message in example.messages if message.role == "assistant"]
        assert tokenizer.decode(scored).replace(" ", "") == "".join(words).replace(" ", "")
        assert sum(rendered.last) == len(words)
        assert sum(rendered.ends) == (len(words) if which == "chat" else 0)
        assert not any(last and not is_scored for last, is_scored in zip(rendered.last, rendered.scored, strict=True))


@pytest.mark.parametrize("which", ["chat", 0, 5])
def test_the_loss_follows_its_definition(
    which: str | int, tokenizer: Tokenizer, model: Transformer, examples: list[Example]
) -> None:
    """Each conversation alone, token by token; the last token of an answer by "begins with its bytes"."""
    render = renderer(which, tokenizer)
    score = score_responses(model, tokenizer, examples, render, batch_tokens=300)
    for number, example in enumerate(examples):
        rendered = render(example)
        probabilities = model(torch.tensor([rendered.ids]))[0].double().softmax(-1)
        nats = ends = 0.0
        for place in range(1, len(rendered.ids)):
            at, token = probabilities[place - 1], rendered.ids[place]
            if rendered.last[place]:
                text = tokenizer.token_bytes(token)
                longer = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids]
                nats -= float(at[[i for i in longer if tokenizer.token_bytes(i).startswith(text)]].sum().log())
            elif rendered.scored[place]:
                nats -= float(at[token].log())
            elif rendered.ends[place]:
                ends -= float(at[token].log())
        assert score.nll_E[number] == pytest.approx(nats, rel=1e-4)
        assert score.ends_E[number] == pytest.approx(ends, rel=1e-4)


def test_the_batch_size_does_not_change_the_score(
    tokenizer: Tokenizer, model: Transformer, examples: list[Example]
) -> None:
    render = renderer("chat", tokenizer)
    one, all_ = (score_responses(model, tokenizer, examples, render, batch_tokens=n).nll_E for n in (1, 100_000))
    np.testing.assert_allclose(one, all_, rtol=1e-4)


def test_few_shot_examples_are_computed_once(
    tokenizer: Tokenizer, model: Transformer, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = FewShotPrompt(ChatFormat(ChatTemplate(tokenizer)), shots=tuple(examples[:3]))
    computed = 0
    decoder = type(model.model)
    forward = decoder.forward

    def counted(self: Any, ids_BT: Tensor, *args: Any, **settings: Any) -> Tensor:
        nonlocal computed
        computed += ids_BT.numel()
        return forward(self, ids_BT, *args, **settings)

    monkeypatch.setattr(decoder, "forward", counted)
    together = score_responses(model, tokenizer, examples[3:], prompt.render, batch_tokens=1_000)
    shared, computed = computed, 0
    alone = [score_responses(model, tokenizer, [example], prompt.render) for example in examples[3:]]
    assert shared < computed / 2
    np.testing.assert_allclose(together.nll_E, [each.nll_E[0] for each in alone], rtol=1e-4)
    np.testing.assert_allclose(together.ends_E, [each.ends_E[0] for each in alone], rtol=1e-4)


def test_the_order_of_the_vocabulary_does_not_change_the_score(
    tokenizer: Tokenizer, model: Transformer, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order differs between processes, and the report of a resumed run once differed in the last bit."""
    text_tokens = list(tokenizer.text_tokens.items())
    scores = set()
    for order in range(8):
        random.Random(order).shuffle(text_tokens)
        monkeypatch.setattr(Tokenizer, "text_tokens", dict(text_tokens))
        scores.add(score_responses(model, tokenizer, examples, renderer(0, tokenizer)).nll_E.tobytes())
    assert len(scores) == 1


def test_the_base_gets_its_best_prompt_format(
    tokenizer: Tokenizer, model: Transformer, examples: list[Example]
) -> None:
    """A base model scored in an unknown format makes any fine-tuning look good."""
    found = best_format(model, tokenizer, ChatFormat(ChatTemplate(tokenizer)), examples)
    losses = [score_responses(model, tokenizer, examples, renderer(which, tokenizer)).nll_E.sum() for which in FORMATS]
    assert found.name == prompt_format(FORMATS[int(np.argmin(losses))], tokenizer).name


def test_equal_models_are_not_significantly_different(
    tokenizer: Tokenizer, model: Transformer, examples: list[Example]
) -> None:
    """Only the format differs here, and noise must not count as a difference."""
    template = ChatTemplate(tokenizer)
    compared = compare_with_base(model, model, tokenizer, template, examples, examples)
    loss = compared.loss
    assert loss.difference.estimate == pytest.approx(loss.after.estimate - loss.before.estimate)
    assert loss.difference.estimate >= 0  # The template is among the candidate formats.
    facts = compared.to_json()
    assert facts["tokens"] == response_tokens(tokenizer, examples).sum()
    assert facts["responses"] == sum(m.role == "assistant" for e in examples for m in e.messages)
    assert facts["base"]["format"] in {ChatFormat.name, *(layout.name for layout in PLAIN_LAYOUTS)}
    low, high = facts["fine_tuned"]["interval"]
    assert low < facts["fine_tuned"]["loss"] < high


def test_one_conversation_gives_null_bounds_in_json(
    tokenizer: Tokenizer, model: Transformer, examples: list[Example]
) -> None:
    """`Infinity` in artifact.json is not valid JSON outside of Python."""
    compared = compare_with_base(model, model, tokenizer, ChatTemplate(tokenizer), examples, examples[:1])
    facts = compared.to_json()
    assert facts["difference"]["interval"] == [None, None]
    assert "not distinguishable" in compared.sentence
    json.dumps(facts, allow_nan=False)


def test_transcripts_show_both_answers(tokenizer: Tokenizer, model: Transformer, examples: list[Example]) -> None:
    template = ChatTemplate(tokenizer)
    compared = compare_with_base(model, model, tokenizer, template, examples, examples)
    shown = compared.transcripts(model, model, tokenizer, count=3, max_tokens=5)
    assert len(shown) == 3
    for transcript in shown:
        example = next(e for e in examples if e.messages[-1].content == transcript["reference"])
        asked = [{"role": m.role, "content": m.content} for m in example.messages[:-1]]
        assert transcript["messages"][:-1] == asked
        assert isinstance(transcript["base"], str)


def test_an_answer_without_template_ends_with_its_turn(tokenizer: Tokenizer, model: Transformer) -> None:
    """A base model continues with the next question."""
    question = [Message("user", "Why?")]
    for format in plain_formats(tokenizer):
        (answer,) = greedy_answers(model, tokenizer, [question], format, max_tokens=40)
        assert "\n" not in answer or format.stop == ("\n\n",)


def test_too_long_examples_are_an_error(tokenizer: Tokenizer, model: Transformer, examples: list[Example]) -> None:
    long = [Example((Message("user", "word " * 400), Message("assistant", "yes")))]
    with pytest.raises(DataError, match="none fits into 256"):
        compare_with_base(model, model, tokenizer, ChatTemplate(tokenizer), examples, long)


def test_a_damaged_model_is_refused(
    tokenizer: Tokenizer, tiny_model: Callable[..., Transformer], examples: list[Example]
) -> None:
    broken = tiny_model(tokenizer.vocab_size, context_length=256)
    broken.lm_head.weight[5] = torch.nan
    with pytest.raises(FormatError, match="not finite"):
        score_responses(broken, tokenizer, examples, renderer("chat", tokenizer))
