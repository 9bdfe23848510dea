"""Fit the lexical head of a classifier with a frozen base model; see `groundup.hub.lexical`.

Shape letters: E: number of texts, D: hidden size, F: number of TF-IDF features, C: number of labels, R: rank of the
Gram matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from groundup.data.labels.batches import Targets
from groundup.data.labels.tfidf import Tfidf
from groundup.hub.lexical import LexicalHead
from groundup.train.classifier.initial_head import LabelLoss, ridge

# Eigenvalues below this fraction of the largest eigenvalue are treated as rounding errors.
_MIN_SHARE = 1e-9

Floats = npt.NDArray[np.float64]


def fit_lexical_head(
    states_ED: npt.NDArray[np.float32], texts: Sequence[str], targets: Targets, loss: LabelLoss, n_labels: int
) -> LexicalHead | None:
    """Fit a lexical head by ridge regression on hidden states and TF-IDF features, with the function `ridge`.

    Each dimension of the hidden states is standardized, and the TF-IDF features are centered. Hidden states and
    features are then scaled to the same mean squared norm, to give both the same influence on the prediction.

    Args:
        states_ED: Hidden state of the last token of each text.
        texts: Texts of the training set.
        targets: Index of the label of each text.
        loss: Loss of the classifier.
        n_labels: Number of labels.

    Returns:
        The lexical head, or None if the texts do not contain any words or characters.
    """
    found = Tfidf.fit(texts)
    if found is None:
        return None
    tfidf, features_EF = found
    states = states_ED.astype(np.float64)
    mean_D, deviation_D = states.mean(0), states.std(0)
    inverse_D = np.divide(1, deviation_D, out=np.zeros_like(deviation_D), where=deviation_D > 0)
    standard_ED = (states - mean_D) * inverse_D
    mean_F = np.asarray(features_EF.mean(0)).reshape(-1)
    # The regression uses Gram matrices of size (E, E), because there are far fewer texts than features.
    counted_EE = _centered((features_EF @ features_EF.T).toarray())
    read_EE = standard_ED @ standard_ED.T
    by_state, by_feature = (1 / max(float(np.trace(each)) / len(texts), 1e-12) for each in (read_EE, counted_EE))
    value_R, vector_ER = np.linalg.eigh(by_state * read_EE + by_feature * counted_EE + 1)  # 1 for the bias
    kept_R = value_R > _MIN_SHARE * value_R.max()
    root_R, vector_ER = np.sqrt(value_R[kept_R]), vector_ER[:, kept_R]
    rows_ER, labels_E = torch.from_numpy(vector_ER * root_R), torch.tensor(targets)
    weight_CR = ridge(rows_ER, labels_E, loss, n_labels)[0].numpy()
    dual_EC = vector_ER @ (weight_CR / root_R).T
    state_CD = by_state * (dual_EC.T @ standard_ED) * inverse_D
    feature_CF = by_feature * ((features_EF.T @ dual_EC).T - dual_EC.sum(0)[:, None] * mean_F)
    bias_C = dual_EC.sum(0) - state_CD @ mean_D - feature_CF @ mean_F
    return LexicalHead(tfidf, state_CD, feature_CF, bias_C)


def _centered(gram_EE: Floats) -> Floats:
    """Return the Gram matrix of the same rows after their mean was subtracted from each row."""
    mean_E = gram_EE.mean(0)
    centered: Floats = gram_EE - mean_E[None, :] - mean_E[:, None] + mean_E.mean()
    return centered
