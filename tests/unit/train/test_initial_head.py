"""The fitted head: its leave-one-out loss is exact, and it never starts above the loss of a uniform prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from groundup.inference.classification import last_hidden_states, predict
from groundup.model import SequenceClassifier, Transformer
from groundup.train.classifier.initial_head import fit_head, ridge
from groundup.train.objectives.classification import Classification, MultiLabelClassification


@pytest.fixture
def classifier(tiny_model: Callable[..., Transformer]) -> SequenceClassifier:
    return SequenceClassifier.from_language_model(tiny_model(200), 4, seed=0)


@pytest.fixture
def texts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(4, 200, rng.integers(3, 20)).tolist() for _ in range(120)]


def test_leave_one_out_losses_match_refitting() -> None:
    """The closed form by leverages, compared with scikit-learn fitted once per text."""
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(3, 6, generator=generator)
    labels = torch.arange(30) % 3
    states = centers[labels] + torch.randn(30, 6, generator=generator)
    targets = F.one_hot(labels, 3).double()
    loss = Classification(0.1, (torch.rand(3, generator=generator) + 0.5).tolist())
    weights = loss.text_weights(labels).double()
    weight, nats, _ = ridge(states, labels, loss, 3)

    def slow(strength: float, scale: float) -> tuple[float, np.ndarray]:
        alpha = strength * float((weights[:, None] * states.double().square()).sum()) / 6
        X, Y, w = states.double().numpy(), targets.numpy(), weights.numpy()
        logits = np.stack(
            [
                Ridge(alpha=alpha, fit_intercept=False)
                .fit(np.delete(X, e, 0), np.delete(Y, e, 0), np.delete(w, e))
                .predict(X[e : e + 1])[0]
                for e in range(30)
            ]
        )
        whole = Ridge(alpha=alpha, fit_intercept=False).fit(X, Y, w).coef_
        weighted = weights.new_tensor([float(loss.text_weights(torch.tensor([n]))) for n in range(3)])
        each = F.cross_entropy(torch.from_numpy(scale * logits), labels, weighted, reduction="sum", label_smoothing=0.1)
        return float(each) / 30, scale * whole

    strengths = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0)
    tried = [slow(strength, 2.0 ** (power / 2)) for strength in strengths for power in range(15)]
    best, expected = min(tried, key=lambda pair: pair[0])
    assert nats == pytest.approx(best, rel=1e-9)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-7)


def test_the_head_predicts_labels_that_depend_on_the_states(
    classifier: SequenceClassifier, texts: list[list[int]]
) -> None:
    """The labels are the nearest of four states; a random head is right by chance only."""
    states = torch.from_numpy(last_hidden_states(classifier, texts, pad_id=0))
    labels = torch.cdist(states, states[:4]).argmin(1).tolist()
    before = (predict(classifier, texts, pad_id=0).argmax(1) == labels).mean()
    body = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    nats = fit_head(classifier, texts, labels, Classification(), pad_id=0, max_tokens=10_000).nats
    after = (predict(classifier, texts, pad_id=0).argmax(1) == labels).mean()
    assert after > max(before, 0.75)
    assert nats < 1.0
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, body[name]), name


def test_noise_labels_do_not_raise_the_loss(classifier: SequenceClassifier) -> None:
    """A head that is fitted to noise and overconfident would start above the loss of a uniform prediction."""
    generator = torch.Generator().manual_seed(1)
    states, labels = torch.randn(40, 32, generator=generator), torch.randint(0, 4, (40,), generator=generator)
    _, nats, _ = ridge(states, labels, Classification(), 4)
    assert nats < 1.05 * np.log(4)


def test_several_labels_and_a_token_limit(classifier: SequenceClassifier, texts: list[list[int]]) -> None:
    states = torch.from_numpy(last_hidden_states(classifier, texts, pad_id=0))
    labels = (states[:, :4] > 0).float().tolist()
    seen: list[int] = []
    limit = sum(map(len, texts[:60]))
    fit_head(classifier, texts, labels, MultiLabelClassification(), pad_id=0, max_tokens=limit, advance=seen.append)
    assert sum(seen) == 60
    right = ((predict(classifier, texts, pad_id=0) > 0.5) == (np.array(labels) > 0.5)).mean()
    assert right > 0.6
