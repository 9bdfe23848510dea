"""Figures of texts beside references: ROUGE, chrF, BLEU, exact match, F1 of words, labels, refusals."""

from groundup.evals.metrics.answers import exact, labels, normalized, refusals, token_f1
from groundup.evals.metrics.choice import are_labels, choose_metric, measures
from groundup.evals.metrics.measure import Measure, mean
from groundup.evals.metrics.overlap import rouge
from groundup.evals.metrics.translation import bleu, chrf

__all__ = [
    "Measure",
    "are_labels",
    "bleu",
    "choose_metric",
    "chrf",
    "exact",
    "labels",
    "mean",
    "measures",
    "normalized",
    "refusals",
    "rouge",
    "token_f1",
]
