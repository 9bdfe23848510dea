"""The loss of every objective is a sum, so splitting a batch does not change the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from groundup.core.types import IGNORE_INDEX
from groundup.data import ExampleLoader
from groundup.data.labels.batches import LabeledBatches, Padding
from groundup.model import SequenceClassifier, Transformer, operations
from groundup.train.objectives import Distillation, NextToken, Objective
from groundup.train.objectives.classification import label_objective
from groundup.train.planner import shape_for_depth

SHAPE = shape_for_depth(1, 50, {"family": "llama", "context_length": 32, "dim": 16})
TEXTS = [[3, 4, 5], [7, 8], [9, 10, 11, 12], [13] * 6]


def next_token() -> tuple[nn.Module, Objective[Any], list[Any], list[Any]]:
    """A model, its objective, one batch of four rows, and the same rows as two batches."""
    examples = [(ids, [False] + [True] * (len(ids) - 1)) for ids in TEXTS]

    def batches(rows: int) -> list[Any]:
        loader = ExampleLoader(examples, context_length=6, batch_size=rows, pad_id=0, seed=0)
        return [loader.batch(index) for index in range(loader.n_rows // rows)]

    rows = ExampleLoader(examples, context_length=6, batch_size=1, pad_id=0, seed=0).n_rows
    return Transformer(SHAPE), NextToken(), batches(rows), batches(1)


def classification() -> tuple[nn.Module, Objective[Any], list[Any], list[Any]]:
    labels = [0, 1, 2, 1]

    def batches(rows: int) -> list[Any]:
        loader = LabeledBatches(TEXTS, labels, batch_size=rows, padding=Padding(0, 32), seed=0)
        return [loader.batch(index) for index in range(loader.per_epoch)]

    model = SequenceClassifier.from_language_model(Transformer(SHAPE), 3, seed=0, multi_label=False)
    objective = label_objective(labels, 3, multi_label=False, label_smoothing=0.1, balance=True)
    return model, objective, batches(4), batches(2)


def gradient(model: nn.Module, objective: Objective[Any], batches: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Return the gradient of a step as the loop computes it."""
    model.zero_grad()
    normalizer = torch.stack([objective.normalizer(batch) for batch in batches]).sum()
    for batch in batches:
        loss, metrics = objective(model, batch)
        assert metrics["loss"][1] == objective.normalizer(batch)
        (loss / normalizer).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", [next_token, classification])
def test_micro_batches_have_the_gradient_of_the_whole_batch(make: Any) -> None:
    torch.manual_seed(0)
    model, objective, whole, parts = make()
    assert len(whole) == 1 and len(parts) > 1
    one, several = gradient(model, objective, whole), gradient(model, objective, parts)
    assert one.keys() == several.keys() and any(g.abs().max() > 0 for g in one.values())
    for name, expected in one.items():
        torch.testing.assert_close(several[name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_distillation_without_weight_is_next_token_prediction() -> None:
    torch.manual_seed(0)
    model, objective, whole, _ = next_token()
    teachers = [Transformer(SHAPE).eval(), Transformer(SHAPE).eval()]
    expected, found = (gradient(model, each, whole) for each in (objective, Distillation(teachers, 0.0)))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_distillation_has_the_gradient_of_the_mixed_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers may have another hidden size and a softcap. The logits are computed in several chunks."""
    torch.manual_seed(0)
    monkeypatch.setattr(operations, "CHUNK_ROWS", 5)
    model, _, (batch,), _ = next_token()
    wider = shape_for_depth(2, 50, {"family": "gemma2", "context_length": 32, "dim": 24, "logit_softcap": 2.0})
    teachers = [Transformer(SHAPE).eval(), Transformer(wider).eval()]
    found = gradient(model, Distillation(teachers, 0.7), [batch])

    def logits(model: nn.Module) -> torch.Tensor:
        keys = {"positions_BT": batch.positions, "document_ids_BT": batch.document_ids}
        return model(batch.input_ids, **keys).flatten(0, 1)

    labels = batch.labels.flatten()
    labeled = labels != IGNORE_INDEX
    assert 0 < labeled.sum() < len(labels)
    mean = sum(logits(each).detach().softmax(-1) for each in teachers) / 2
    target = 0.7 * mean[labeled] + 0.3 * nn.functional.one_hot(labels[labeled], 50)
    model.zero_grad()
    nn.functional.cross_entropy(logits(model)[labeled], target).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_teacher_with_the_same_weights_changes_nothing() -> None:
    torch.manual_seed(0)
    model, _, whole, _ = next_token()
    assert isinstance(model, Transformer)
    same = Transformer(SHAPE)
    same.load_state_dict(model.state_dict())
    assert all(each.abs().max() < 1e-6 for each in gradient(model, Distillation([same.eval()], 1.0), whole).values())
