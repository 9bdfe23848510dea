"""The initial head of a classifier minimizes the same loss as the training.

In an earlier release, the initial head was fitted to unsmoothed cross-entropy with a logit scale of up to 2^7, but the
training used label smoothing of 0.1. On 120 emails, the first step had a loss of 4 to 8 although all predictions were
correct, its gradient norm was 1,655, and the next losses were 38 to 72.
"""

from __future__ import annotations

import math

import pytest
import torch

from groundup.train.classifier.initial_head import LabelLoss, ridge
from groundup.train.objectives.classification import Classification, MultiLabelClassification


@pytest.fixture
def states() -> tuple[torch.Tensor, torch.Tensor]:
    """Return hidden states and labels of three classes that are easy to separate.

    For such data, a larger logit scale always reduces the unsmoothed cross-entropy.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    centers = 4 * torch.randn(3, 16, generator=generator)
    return centers[labels] + 0.3 * torch.randn(120, 16, generator=generator), labels


def start(states: torch.Tensor, labels: torch.Tensor, loss: LabelLoss) -> tuple[float, float]:
    """Return the loss per text and the gradient norm at step 1."""
    weight, *_ = ridge(states, labels, loss, 3)
    weight.requires_grad_()
    mean = loss.summed_loss(states.double() @ weight.T, labels) / len(states)
    mean.backward()
    assert weight.grad is not None
    return mean.item(), weight.grad.norm().item()


def test_label_smoothing_of_training_is_that_of_the_fit(states: tuple[torch.Tensor, torch.Tensor]) -> None:
    """With label smoothing of 0.1, the minimum loss is the entropy of the smoothed labels."""
    least = -sum(share * math.log(share) for share in (0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3))
    loss, norm = start(*states, Classification(0.1))
    assert loss < least + 0.05
    assert norm < 0.5


def test_class_weights_of_training_are_those_of_the_fit() -> None:
    """A rare label has a large weight. A head that is fitted without the weight has a loss of 0.69 in training."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 110 + [1] * 10)
    states = torch.randn(120, 8, generator=generator) + labels[:, None]
    weighted, plain = Classification(0.1, [120 / 220, 6.0]), Classification(0.1)
    losses = []
    for fitted in (weighted, plain):
        weight, *_ = ridge(states, labels, fitted, 2)
        losses.append(float(weighted.summed_loss(states.double() @ weight.T, labels)) / 120)
    assert losses[0] < losses[1] - 0.02


def test_positive_weights_of_several_labels_are_those_of_the_fit() -> None:
    """Few texts have each of the labels, and each label has a large weight."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(120, 8, generator=generator)
    labels = torch.stack([states[:, 0] > 1.2, states[:, 1] > 1.5], 1).double()
    weighted, plain = MultiLabelClassification([8.0, 14.0]), MultiLabelClassification()
    losses = []
    for fitted in (weighted, plain):
        weight, *_ = ridge(states, labels, fitted, 2)
        losses.append(float(weighted.summed_loss(states.double() @ weight.T, labels)) / 120)
    assert losses[0] < losses[1] - 0.02
