"""How a classifier reads: the way that tells the labels best, tried on no more texts than it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer
from groundup.train.objectives import framing
from groundup.train.objectives.classification import Classification
from groundup.train.objectives.framing import BEFORE, BEHIND, best_way_to_read, ways_to_read
from groundup.train.objectives.probe import HeadFit, fit_head

TEXTS = [f"number {n} is {'odd' if n % 2 else 'even'}, as it is known" for n in range(80)]
LABELS = [n % 2 for n in range(80)]


def test_the_sentence_is_tried_where_the_context_has_room(tokenizer: Tokenizer) -> None:
    alone, framed = ways_to_read(tokenizer, 4096)
    assert alone is tokenizer
    assert framed.decode(framed.whole(tokenizer.encode("What?"))) == f"{BEFORE}What?{BEHIND}"
    assert ways_to_read(tokenizer, 64) == [tokenizer]


@pytest.mark.parametrize("nats", [(1.0, 2.0), (2.0, 1.0)])
def test_the_way_with_fewer_nats_is_taken(
    tokenizer: Tokenizer, tiny_model: Callable[..., Transformer], nats: tuple[float, float]
) -> None:
    ways = ways_to_read(tokenizer, 4096)
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    read: list[Sequence[Sequence[int]]] = []

    def fit(_: SequenceClassifier, texts: Sequence[Sequence[int]], labels: Sequence[int], **given: Any) -> HeadFit:
        assert len(texts) == len(labels)
        assert given["most_tokens"] == sum(map(len, texts))
        read.append(texts)
        return HeadFit(nats[len(read) - 1], 1.0, 0.0, len(texts))

    best, fits = best_way_to_read(model, ways, TEXTS, LABELS, 12, fit)
    assert (best, [each.nats for each in fits]) == (int(nats[1] < nats[0]), list(nats))
    for way, texts in zip(ways, read, strict=True):  # cut alike, whatever stands around
        assert texts == [way.whole(tokenizer.encode(text), 12 + way.added - tokenizer.added) for text in TEXTS]


def test_a_few_texts_are_enough(
    tokenizer: Tokenizer, tiny_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "_TRIED_TOKENS", 200)
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    ways, tried = ways_to_read(tokenizer, 4096), []

    def fit(model: SequenceClassifier, texts: Any, labels: Any, **given: Any) -> HeadFit:
        tried.append(sum(len(tokenizer.encode(text)) + 1 for text in TEXTS[: len(texts)]))
        return fit_head(model, texts, labels, Classification(), **given)

    _, nats = best_way_to_read(model, ways, TEXTS, LABELS, 48, fit)
    assert len(nats) == 2
    assert all(200 <= tokens < 250 for tokens in tried)


def test_one_way_needs_no_trial(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> None:
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 2, seed=0)
    assert best_way_to_read(model, [tokenizer], TEXTS, LABELS, 48, lambda *_, **__: 1 / 0) == (0, [])
