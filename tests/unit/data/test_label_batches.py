"""Batches of labeled texts: padding, and the number of times that each text occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from groundup.data.labels.batches import LabeledBatch, LabeledBatches, Padding, label_targets
from groundup.data.labels.reading import SEPARATOR, Labeled
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer

MAX_TOKENS = 64


@pytest.fixture(scope="module")
def ids(tokenizer: Tokenizer, real_documents: list[str]) -> list[list[int]]:
    lines = [line for text in real_documents[:40] for line in text.splitlines() if line.strip()][:203]
    return [tokenizer.build_inputs(ids, MAX_TOKENS) for ids in tokenizer.encode_batch(lines)]


@pytest.fixture(scope="module")
def classifier(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> SequenceClassifier:
    model = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 3, seed=0)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(1))
    return model


def batches(ids: list[list[int]], seed: int = 0) -> LabeledBatches:
    labels = [i % 3 for i in range(len(ids))]
    return LabeledBatches(ids, labels, batch_size=8, padding=Padding(1, MAX_TOKENS), seed=seed)


def rows(batch: LabeledBatch) -> list[tuple[int, ...]]:
    return [(*ids[: last + 1].tolist(), label) for ids, last, label in zip(*vars_of(batch), strict=True)]


def vars_of(batch: LabeledBatch) -> tuple[torch.Tensor, list[int], list[int]]:
    return batch.input_ids, batch.last.tolist(), batch.labels.tolist()


def test_an_epoch_has_every_text_once_with_its_label(ids: list[list[int]]) -> None:
    expected = Counter((*text, i % 3) for i, text in enumerate(ids))
    loader = batches(ids)
    for epoch in range(2):
        seen = Counter(row for i in range(loader.per_epoch) for row in rows(loader.batch(epoch * loader.per_epoch + i)))
        assert seen == expected
    assert loader.texts_in(2 * loader.per_epoch) == 2 * len(ids)
    assert loader.texts_in(3) == sum(len(loader.batch(i).labels) for i in range(3))


def test_a_batch_is_a_function_of_seed_and_index(ids: list[list[int]]) -> None:
    """A resumed run loads batch n first and must not depend on earlier batches."""
    walked = batches(ids)
    for i in range(40):
        batch = walked.batch(i)
    torch.testing.assert_close(batches(ids).batch(39).input_ids, batch.input_ids, rtol=0, atol=0)
    assert rows(batches(ids, seed=1).batch(0)) != rows(batches(ids).batch(0))
    orders = [[rows(walked.batch(e * walked.per_epoch + i)) for i in range(walked.per_epoch)] for e in range(2)]
    assert orders[0] != orders[1]


def test_padding_is_small(ids: list[list[int]]) -> None:
    """Texts of similar length share a batch, because padding costs as much as text."""
    loader = batches(ids)
    cells = sum(loader.batch(i).input_ids.numel() for i in range(loader.per_epoch))
    assert cells < 1.6 * sum(map(len, ids))


def test_the_largest_and_the_typical_batch(ids: list[list[int]]) -> None:
    """The largest batch estimates the memory of a run, the typical one its time."""
    loader = batches(ids)
    cells = [loader.batch(i).input_ids.numel() for i in range(loader.per_epoch)]
    assert cells[loader.largest] == max(cells)
    mean = sum(cells) / len(cells)
    assert abs(cells[loader.typical] - mean) == min(abs(each - mean) for each in cells)


def test_padding_does_not_change_the_logits(ids: list[list[int]], classifier: SequenceClassifier) -> None:
    with torch.no_grad():
        together = classifier(*Padding(1, MAX_TOKENS).pad(ids[:20]))
        other_fill = classifier(*Padding(7, MAX_TOKENS).pad(ids[:20]))
        alone = torch.cat([classifier(torch.tensor([text]), torch.tensor([len(text) - 1])) for text in ids[:20]])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, other_fill, atol=1e-5, rtol=0)


def test_labels_become_indices_or_rows() -> None:
    assert label_targets(Labeled(["a", "b"], ["yes", "no"]), ["no", "yes"]) == [1, 0]
    both = Labeled(["a", "b"], [SEPARATOR.join(("no", "yes")), "yes"], multi_label=True)
    assert label_targets(both, ["no", "yes"]) == [[1.0, 1.0], [0.0, 1.0]]
