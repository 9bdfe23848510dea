"""The prompt format with the lowest loss is chosen, on few texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer
from groundup.train.classifier import initial_head
from groundup.train.classifier.initial_head import (
    PROMPT_AFTER,
    PROMPT_BEFORE,
    HeadFit,
    PromptFormats,
    best_prompt_format,
    fit_head,
)
from groundup.train.objectives.classification import Classification

TEXTS = [f"number {n} is {'odd' if n % 2 else 'even'}, as it is known" for n in range(80)]
LABELS = [n % 2 for n in range(80)]


def test_the_prompt_is_tried_if_the_context_is_long_enough(tokenizer: Tokenizer) -> None:
    plain, with_prompt = PromptFormats.for_context(tokenizer, 4096).tokenizers
    assert plain is tokenizer
    assert (
        with_prompt.decode(with_prompt.build_inputs(tokenizer.encode("What?"))) == f"{PROMPT_BEFORE}What?{PROMPT_AFTER}"
    )
    assert PromptFormats.for_context(tokenizer, 64).tokenizers == (tokenizer,)


def test_every_format_fits_the_context(tokenizer: Tokenizer) -> None:
    formats = PromptFormats.for_context(tokenizer, 4096)
    assert max(formats.max_tokens_of(index) for index in range(len(formats))) == 4096
    texts = ["word " * 6000]
    plain, with_prompt = (formats.encode(index, texts)[0] for index in (0, 1))
    assert (len(plain), len(with_prompt)) == (formats.max_tokens, 4096)
    assert PromptFormats.for_context(tokenizer, 4096, 20).max_tokens == 20
    assert PromptFormats.for_context(tokenizer, 4096, 5000).max_tokens == formats.max_tokens


@pytest.mark.parametrize("nats", [(1.0, 2.0), (2.0, 1.0)])
def test_the_format_with_the_lower_loss_is_chosen(
    tokenizer: Tokenizer, tiny_model: Callable[..., Transformer], nats: tuple[float, float]
) -> None:
    formats = PromptFormats(PromptFormats.for_context(tokenizer, 4096).tokenizers, 12)
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    read: list[Sequence[Sequence[int]]] = []

    def fit(_: SequenceClassifier, texts: Sequence[Sequence[int]], labels: Sequence[int], **given: Any) -> HeadFit:
        assert len(texts) == len(labels)
        assert given["max_tokens"] == sum(map(len, texts))
        read.append(texts)
        return HeadFit(nats[len(read) - 1], 1.0, 0.0, len(texts))

    best, fits = best_prompt_format(model, formats, TEXTS, LABELS, fit)
    assert (best, [each.nats for each in fits]) == (int(nats[1] < nats[0]), list(nats))
    # The tokens of the prompt are not taken from the text.
    for each, texts in zip(formats.tokenizers, read, strict=True):
        assert texts == [
            each.build_inputs(tokenizer.encode(text), 12 + each.num_added_tokens - tokenizer.num_added_tokens)
            for text in TEXTS
        ]


def test_few_texts_are_used(
    tokenizer: Tokenizer, tiny_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_head, "_FORMAT_TOKENS", 200)
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    formats, tried = PromptFormats.for_context(tokenizer, 4096, 48), []

    def fit(model: SequenceClassifier, texts: Any, labels: Any, **given: Any) -> HeadFit:
        tried.append(sum(len(tokenizer.encode(text)) + 1 for text in TEXTS[: len(texts)]))
        return fit_head(model, texts, labels, Classification(), **given)

    _, nats = best_prompt_format(model, formats, TEXTS, LABELS, fit)
    assert len(nats) == 2
    assert all(200 <= tokens < 250 for tokens in tried)


def test_a_single_format_is_not_tried(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> None:
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    assert best_prompt_format(model, PromptFormats((tokenizer,), 48), TEXTS, LABELS, lambda *_, **__: 1 / 0) == (0, [])
