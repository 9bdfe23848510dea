"""Verification of a merged model against its base with the adapter."""

from __future__ import annotations

from pathlib import Path

from groundup.core.console import Console
from groundup.evaluation.verification.classifier import LabelAgreement, compare_classifiers
from groundup.evaluation.verification.round_trip import Check, OurRunner, Verdict, material, require_none, run_gate
from groundup.hub import load_model
from groundup.hub.adapted import classifier_with_adapter, load_classifier, with_adapter
from groundup.tokenizer import Tokenizer

_PROGRESS = "trying it"
_LIMITS = {"float32": "exact", "bfloat16": "bf16", "float16": "f16"}


def verify_merged_model(
    merged: Path, adapter: Path, base: Path, tokenizer: Tokenizer, dtype: str, console: Console
) -> Verdict:
    """Compare the language model in `merged` with base and adapter.

    Args:
        dtype: of the merged weights, which sets the limits.

    Raises:
        FormatError: they do not agree.
    """
    model = load_model(merged)
    reference = OurRunner("base and adapter", with_adapter(load_model(base), adapter), tokenizer)
    check = Check(reference, OurRunner("merged", model, tokenizer), _LIMITS[dtype])
    tried = material(tokenizer, model.config.context_length)
    verdict = run_gate([check], tried, console=console, label=_PROGRESS)
    require_none(verdict.problems, *_fix(merged, dtype))
    return verdict


def verify_merged_classifier(
    merged: Path, adapter: Path, base: Path, tokenizer: Tokenizer, longest: int, dtype: str, console: Console
) -> LabelAgreement:
    """Compare the classifier in `merged` with base and adapter.

    Args:
        longest: maximum number of tokens per text.
        dtype: of the merged weights, which sets the limits.

    Raises:
        FormatError: they do not agree.
    """
    reference, _ = classifier_with_adapter(load_model(base), adapter)
    classifier, _ = load_classifier(merged)
    agreement = compare_classifiers(reference, classifier, tokenizer, longest, console=console, label=_PROGRESS)
    require_none(agreement.problems(_LIMITS[dtype]), *_fix(merged, dtype))
    return agreement


def _fix(merged: Path, dtype: str) -> tuple[str, ...]:
    """Return the name for an error, and what to do about it if the dtype may be the cause."""
    name = f"{merged.name} in {dtype}"
    return (name,) if dtype == "float32" else (name, "Give --dtype float32, which rounds less")
