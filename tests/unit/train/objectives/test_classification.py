"""Batches of labelled texts and their loss: what is padded, what is seen how often, what it adds up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer
from groundup.train.objectives.classification import (
    Classification,
    LabelledBatch,
    LabelledBatches,
    encode,
    pad,
    usual_epochs,
)

LONGEST = 64


@pytest.fixture(scope="module")
def ids(tokenizer: Tokenizer, real_documents: list[str]) -> list[list[int]]:
    lines = [line for text in real_documents[:40] for line in text.splitlines() if line.strip()][:203]
    return encode(tokenizer, lines, LONGEST)[0]


@pytest.fixture(scope="module")
def classifier(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> SequenceClassifier:
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 3, seed=0)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(1))
    return model


def batches(ids: list[list[int]], seed: int = 0) -> LabelledBatches:
    labels = [i % 3 for i in range(len(ids))]
    return LabelledBatches(ids, labels, batch_size=8, pad_id=1, longest=LONGEST, seed=seed)


def rows(batch: LabelledBatch) -> list[tuple[int, ...]]:
    return [(*ids[: last + 1].tolist(), label) for ids, last, label in zip(*vars_of(batch), strict=True)]


def vars_of(batch: LabelledBatch) -> tuple[torch.Tensor, list[int], list[int]]:
    return batch.input_ids, batch.last.tolist(), batch.labels.tolist()


def test_an_epoch_has_every_text_once_with_its_own_label(ids: list[list[int]]) -> None:
    expected = Counter((*text, i % 3) for i, text in enumerate(ids))
    loader = batches(ids)
    for epoch in range(2):
        seen = Counter(row for i in range(loader.per_epoch) for row in rows(loader.batch(epoch * loader.per_epoch + i)))
        assert seen == expected
    assert loader.texts_in(2 * loader.per_epoch) == 2 * len(ids)
    assert loader.texts_in(3) == sum(len(loader.batch(i).labels) for i in range(3))


def test_a_batch_follows_from_seed_and_index(ids: list[list[int]]) -> None:
    """A resumed run asks for batch n first; had it to read n - 1 before, it would see others."""
    walked = batches(ids)
    for i in range(40):
        batch = walked.batch(i)
    torch.testing.assert_close(batches(ids).batch(39).input_ids, batch.input_ids, rtol=0, atol=0)
    assert rows(batches(ids, seed=1).batch(0)) != rows(batches(ids).batch(0))
    orders = [[rows(walked.batch(e * walked.per_epoch + i)) for i in range(walked.per_epoch)] for e in range(2)]
    assert orders[0] != orders[1]


def test_little_is_padded(ids: list[list[int]]) -> None:
    """Texts of like length go together: padding costs as much time as text."""
    loader = batches(ids)
    cells = sum(loader.batch(i).input_ids.numel() for i in range(loader.per_epoch))
    assert cells < 1.6 * sum(map(len, ids))


def test_the_largest_and_the_usual_batch_are_known(ids: list[list[int]]) -> None:
    """What they take is what a run is expected to take: memory by the one, time by the other."""
    loader = batches(ids)
    cells = [loader.batch(i).input_ids.numel() for i in range(loader.per_epoch)]
    assert cells[loader.largest] == max(cells)
    mean = sum(cells) / len(cells)
    assert abs(cells[loader.usual] - mean) == min(abs(each - mean) for each in cells)


def test_padding_does_not_change_the_logits(ids: list[list[int]], classifier: SequenceClassifier) -> None:
    with torch.no_grad():
        together = classifier(*pad(ids[:20], 1, LONGEST))
        other_fill = classifier(*pad(ids[:20], 7, LONGEST))
        alone = torch.cat([classifier(torch.tensor([text]), torch.tensor([len(text) - 1])) for text in ids[:20]])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, other_fill, atol=1e-5, rtol=0)


def test_the_loss_is_the_sum_over_texts(ids: list[list[int]], classifier: SequenceClassifier) -> None:
    """So that the loop's division by the number of texts gives the mean, however a batch is cut."""
    batch = batches(ids).batch(0)
    objective = Classification()
    loss, metrics = objective(classifier, batch)
    logits = classifier(batch.input_ids, batch.last)
    assert loss.item() / int(objective.normalizer(batch)) == pytest.approx(F.cross_entropy(logits, batch.labels).item())
    assert metrics["accuracy"] == (int((logits.argmax(1) == batch.labels).sum()), 8)
    halves = [LabelledBatch(batch.input_ids[p], batch.last[p], batch.labels[p]) for p in (slice(0, 3), slice(3, 8))]
    assert sum(objective(classifier, half)[0].item() for half in halves) == pytest.approx(loss.item(), rel=1e-5)


def test_longer_texts_lose_their_end_and_are_counted(tokenizer: Tokenizer) -> None:
    texts, cut = encode(tokenizer, ["short", "long " * 100, ""], 16)
    assert cut == 1
    assert [len(text) for text in texts][1:] == [16, 1]
    assert texts[1] == [tokenizer.bos_id, *tokenizer.encode("long " * 100)][:16]


def test_text_cannot_become_a_special_token(tokenizer: Tokenizer) -> None:
    (ids,), _ = encode(tokenizer, ["<|endoftext|><|pad|><|im_end|>"], 99)
    assert not tokenizer.special_ids & set(ids[1:])


@pytest.mark.parametrize("n_texts", [2, 500, 10_000, 100_000])
def test_few_texts_are_seen_more_often(n_texts: int) -> None:
    assert usual_epochs(n_texts) >= usual_epochs(2 * n_texts) >= 1


def test_the_new_head_starts_undecided(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> None:
    """Large logits at the start would be unlearned through the decoder's weights."""
    base = tiny_model(tokenizer.vocab_size)
    model = SequenceClassifier.from_language_model(base, 40, seed=0)
    probabilities = model(*pad([[0, 5, 9]], 1, LONGEST)).softmax(-1)
    torch.testing.assert_close(probabilities, torch.full((1, 40), 1 / 40), atol=0.002, rtol=0)


def test_a_classifier_takes_the_decoder_over(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> None:
    """A copy would have the weights in memory twice; a decoder left frozen would learn by its head alone."""
    base = tiny_model(tokenizer.vocab_size)
    model = SequenceClassifier.from_language_model(base, 3, seed=0)
    assert model.model.embed_tokens.weight.data_ptr() == base.model.embed_tokens.weight.data_ptr()
    assert all(parameter.requires_grad for parameter in model.parameters())
