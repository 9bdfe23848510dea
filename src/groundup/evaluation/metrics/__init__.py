"""Metrics of generated texts: ROUGE, chrF, BLEU, exact match, token F1, label accuracy and F1, and refusal rates."""

from groundup.evaluation.measure import Measure, mean
from groundup.evaluation.metrics.answers import (
    exact,
    label_parser,
    label_sets,
    labels,
    normalized,
    refusals,
    same_number,
    token_f1,
)
from groundup.evaluation.metrics.choice import choose_metric, label_names, measures
from groundup.evaluation.metrics.overlap import rouge
from groundup.evaluation.metrics.translation import bleu, chrf

__all__ = [
    "Measure",
    "bleu",
    "choose_metric",
    "chrf",
    "exact",
    "label_names",
    "label_parser",
    "label_sets",
    "labels",
    "mean",
    "measures",
    "normalized",
    "refusals",
    "rouge",
    "same_number",
    "token_f1",
]
