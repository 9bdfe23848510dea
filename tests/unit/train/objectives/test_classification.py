"""Losses of a classifier."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from groundup.data.labels.batches import LabeledBatch, Padding
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer
from groundup.train.objectives.classification import Classification, MultiLabelClassification, label_objective


def test_the_loss_is_summed_over_texts(
    tokenizer: Tokenizer, real_documents: list[str], tiny_model: Callable[..., Transformer]
) -> None:
    """The loop divides by the number of texts, so the split into micro-batches does not matter."""
    classifier = SequenceClassifier.from_language_model(tiny_model(tokenizer.vocab_size), 3, seed=0)
    torch.nn.init.normal_(classifier.score.weight, generator=torch.Generator().manual_seed(1))
    texts = [tokenizer.build_inputs(ids, 64) for ids in tokenizer.encode_batch(real_documents[:8])]
    batch = LabeledBatch(*Padding(1, 64).pad(texts), torch.tensor([n % 3 for n in range(8)]))
    objective = Classification()
    loss, metrics = objective(classifier, batch)
    logits = classifier(batch.input_ids, batch.last)
    assert loss.item() / int(objective.normalizer(batch)) == pytest.approx(F.cross_entropy(logits, batch.labels).item())
    assert metrics["accuracy"] == (int((logits.argmax(1) == batch.labels).sum()), 8)
    halves = [LabeledBatch(batch.input_ids[p], batch.last[p], batch.labels[p]) for p in (slice(0, 3), slice(3, 8))]
    assert sum(objective(classifier, half)[0].item() for half in halves) == pytest.approx(loss.item(), rel=1e-5)


def test_the_objective_depends_on_the_kind_of_labels() -> None:
    single = label_objective([0, 1, 1], 2, multi_label=False, label_smoothing=0.1, balance=True)
    assert isinstance(single, Classification)
    assert single.text_weights(torch.tensor([0, 1, 1])).tolist() == pytest.approx([1.5, 0.75, 0.75])
    several = label_objective([[1.0, 1.0], [0.0, 1.0]], 2, multi_label=True, label_smoothing=0.1, balance=False)
    assert isinstance(several, MultiLabelClassification)
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]])
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    torch.testing.assert_close(several.summed_loss(logits, labels), expected)
