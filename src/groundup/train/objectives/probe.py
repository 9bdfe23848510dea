"""Fit a classifier's head before step 1: ridge regression on the hidden states of the frozen base model.

A random head distorts the features below it while it learns what a fitted head has from the start (Kumar et al. 2022,
arXiv:2202.10054). SmolLM2-135M on 880 messages of 76 intents, one epoch, one seed: 53.3 % accuracy on 579 others,
against 46.0 % from a random head.

Shape letters: E texts, D dim, C labels, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model import SequenceClassifier
from groundup.train.objectives.classification import last_states

_STRENGTHS = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0)  # of the ridge, as shares of the features' mean square
_SCALES = tuple(2.0 ** (power / 2) for power in range(15))  # of the logits: a ridge's are near its targets, 0 and 1


class LabelLoss(Protocol):
    """The loss that training minimizes, which the scale of the head's logits is fitted to as well."""

    def text_weights(self, labels_E: Tensor) -> Tensor:
        """Weight of each text in a least-squares fit, (E,)."""
        ...

    def summed_loss(self, logits_EC: Tensor, labels_E: Tensor) -> Tensor:
        """Summed loss in nats, (); labels are (E,) or, with several labels per text, (E, C)."""
        ...


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A fitted head.

    Attributes:
        nats, accuracy: loss per text and share of right texts, each text predicted by a fit without it.
        grad_norm: of the mean loss of these texts, with respect to the head's weights.
        texts: number of texts that it was fitted on.
    """

    nats: float
    accuracy: float
    grad_norm: float
    texts: int


def fit_head(
    model: SequenceClassifier,
    texts: Sequence[Sequence[int]],
    labels: Sequence[int] | Sequence[Sequence[float]],
    loss: LabelLoss,
    *,
    pad_id: int,
    most_tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> HeadFit:
    """Fit the head of a classifier in place; all other weights stay as they are.

    Args:
        texts: token ids in any order; the first texts that fit into `most_tokens` are used.
        labels: as `LabelledBatches` takes them.
        loss: of the training that follows. Another loss would start the head at a scale that training must undo: with
            a scale for plain cross-entropy, training with label smoothing 0.1 started at a loss of 4 to 8.
    """
    count, tokens = 0, 0
    while count < len(texts) and tokens + len(texts[count]) <= most_tokens:
        tokens += len(texts[count])
        count += 1
    states_ED = torch.from_numpy(last_states(model, texts[:count], pad_id=pad_id, advance=advance))
    labels_E = torch.tensor(labels[:count])
    weight_CD, nats, accuracy = ridge(states_ED, labels_E, loss, len(model.score.weight))
    with torch.no_grad():
        model.score.weight.copy_(weight_CD)
    weight_CD.requires_grad_()
    summed = loss.summed_loss(states_ED.to(weight_CD.dtype) @ weight_CD.T, labels_E)
    (gradient_CD,) = torch.autograd.grad(summed / count, weight_CD)
    return HeadFit(nats, accuracy, float(gradient_CD.norm()), count)


def ridge(states_ED: Tensor, labels_E: Tensor, loss: LabelLoss, n_labels: int) -> tuple[Tensor, float, float]:
    """Return the weights (C, D) of a ridge regression, the loss per text, and the share of right texts.

    Strength and scale are those with the lowest leave-one-out loss. It needs no second fit: without a text, its
    prediction is (p - h y) / (1 - h), with its prediction p and its leverage h.

    Args:
        labels_E: index of each text's label; with several labels per text (E, C), 1.0 for each label it has.
    """
    several = labels_E.ndim == 2
    targets_EC = 2 * labels_E.double() - 1 if several else F.one_hot(labels_E, n_labels).double()
    root_E1 = loss.text_weights(labels_E).double().sqrt()[:, None]
    wanted_EC = root_E1 * targets_EC
    U_ER, s_R, Vt_RD = torch.linalg.svd(root_E1 * states_ED.double(), full_matrices=False)
    mean_square = s_R.square().sum() / states_ED.shape[1]
    found: list[tuple[float, float, float, float]] = []
    for strength in _STRENGTHS:
        kept_R = s_R.square() / (s_R.square() + strength * mean_square)
        predicted_EC = (U_ER * kept_R) @ (U_ER.T @ wanted_EC)
        leverage_E1 = (U_ER.square() * kept_R).sum(1, keepdim=True)
        unseen_EC = (predicted_EC - leverage_E1 * wanted_EC) / (1 - leverage_E1).clamp(min=1e-6) / root_E1
        right_E = ((unseen_EC > 0) == labels_E.bool()).all(1) if several else unseen_EC.argmax(1) == labels_E
        for scale in _SCALES:
            nats = float(loss.summed_loss(scale * unseen_EC, labels_E)) / len(states_ED)
            found.append((nats, strength, scale, float(right_E.double().mean())))
    nats, strength, scale, accuracy = min(found)
    inverse_R = s_R / (s_R.square() + strength * mean_square)
    weight_DC = Vt_RD.T @ (inverse_R[:, None] * (U_ER.T @ wanted_EC))
    return scale * weight_DC.T, nats, accuracy
