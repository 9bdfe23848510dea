"""A classifier's head before step 1: a linear fit on what the untouched model makes of the texts.

A head that begins at random spoils the features under it while it learns what they could have told it at once (Kumar et
al. 2022, arXiv:2202.10054). SmolLM2-135M on 880 messages of 76 intents, one epoch, one seed: 53.3 % of 579 others get
theirs, against 46.0 % from a random head.

Shape letters: E texts, D dim, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model import SequenceClassifier
from groundup.objectives.classification import balancing_weights, last_states

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, as shares of the features' mean square
_SCALES = tuple(2.0**power for power in range(8))  # of the logits: a ridge's are of the size of its targets, 0 and 1


def fit_head(
    model: SequenceClassifier,
    texts: Sequence[Sequence[int]],
    labels: Sequence[int] | Sequence[Sequence[float]],
    *,
    pad_id: int,
    most_tokens: int,
    balance: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> float:
    """Fit the head of a classifier, in place; the rest stays as it is.

    Args:
        texts: token ids, in any order; as many of them, from the first on, as `most_tokens` hold.
        labels: as `LabelledBatches` takes them.
        balance: all labels count alike, where a text has one.

    Returns:
        Nats of a text's label (or labels), of texts that the fit has not seen.
    """
    count, tokens = 0, 0
    while count < len(texts) and tokens + len(texts[count]) <= most_tokens:
        tokens += len(texts[count])
        count += 1
    states_ED = torch.from_numpy(last_states(model, texts[:count], pad_id=pad_id, advance=advance))
    targets = torch.tensor(labels[:count])
    several, n_labels = targets.ndim == 2, len(model.score.weight)
    targets_EC = targets.double() if several else F.one_hot(targets, n_labels).double()
    weights_E = torch.ones(count, dtype=torch.float64)
    if balance and not several:
        weights_E = torch.tensor(balancing_weights(targets.tolist(), n_labels), dtype=torch.float64)[targets]
    weight_CD, nats = ridge(states_ED, targets_EC, weights_E, several=several)
    with torch.no_grad():
        model.score.weight.copy_(weight_CD)
    return nats


def ridge(states_ED: Tensor, targets_EC: Tensor, weights_E: Tensor, *, several: bool) -> tuple[Tensor, float]:
    """Weights (C, D) of a ridge regression, and their nats a text; strength and scale by leaving each text out once.

    That needs no second fit: without a text, its prediction is (p - h y) / (1 - h), of p with it and its leverage h.

    Args:
        weights_E: what each text counts.
    """
    root_E1 = weights_E.sqrt()[:, None]
    wanted_EC = root_E1 * (2 * targets_EC - 1 if several else targets_EC)
    U_ER, s_R, Vt_RD = torch.linalg.svd(root_E1 * states_ED.double(), full_matrices=False)
    mean_square = s_R.square().sum() / states_ED.shape[1]
    found: list[tuple[float, float, float]] = []
    for strength in _STRENGTHS:
        kept_R = s_R.square() / (s_R.square() + strength * mean_square)
        predicted_EC = (U_ER * kept_R) @ (U_ER.T @ wanted_EC)
        leverage_E1 = (U_ER.square() * kept_R).sum(1, keepdim=True)
        unseen_EC = (predicted_EC - leverage_E1 * wanted_EC) / (1 - leverage_E1).clamp(min=1e-6) / root_E1
        found += [(_nats(scale * unseen_EC, targets_EC, weights_E, several), strength, scale) for scale in _SCALES]
    nats, strength, scale = min(found)
    inverse_R = s_R / (s_R.square() + strength * mean_square)
    weight_DC = Vt_RD.T @ (inverse_R[:, None] * (U_ER.T @ wanted_EC))
    return scale * weight_DC.T, nats


def _nats(logits_EC: Tensor, targets_EC: Tensor, weights_E: Tensor, several: bool) -> float:
    if several:
        nats_E = F.binary_cross_entropy_with_logits(logits_EC, targets_EC, reduction="none").sum(1)
    else:
        nats_E = F.cross_entropy(logits_EC, targets_EC, reduction="none")
    return float((weights_E * nats_E).sum() / weights_E.sum())
