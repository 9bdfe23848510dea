"""Round-trip check of a merged model, which compares it with the base model and the unmerged adapter."""

from __future__ import annotations

from pathlib import Path

from groundup.core.console import Console
from groundup.evaluation.verification.classifier import LabelAgreement, compare_classifiers
from groundup.evaluation.verification.round_trip import (
    Check,
    GroundupRunner,
    Verdict,
    require_no_problems,
    round_trip_inputs,
    run_checks,
)
from groundup.hub import load_model
from groundup.hub.adapted import classifier_with_adapter, with_adapter
from groundup.hub.loading import load_classifier
from groundup.tokenizer import Tokenizer

_PROGRESS = "comparing with base and adapter"
_LIMITS = {"float32": "exact", "bfloat16": "bf16", "float16": "f16"}


def verify_merged_model(
    merged: Path, adapter: Path, base: Path, tokenizer: Tokenizer, dtype: str, console: Console
) -> Verdict:
    """Compare a merged language model with its base model to which the adapter is applied.

    Args:
        merged: directory of the merged model.
        adapter: directory of the adapter.
        base: directory of the base model.
        tokenizer: tokenizer of the base model.
        dtype: data type of the merged weights, which determines the limits of the check.
        console: console that prints progress.

    Returns:
        The result of the check.

    Raises:
        FormatError: the models do not agree.
    """
    model = load_model(merged)
    reference = GroundupRunner("base and adapter", with_adapter(load_model(base), adapter), tokenizer)
    check = Check(reference, GroundupRunner("merged", model, tokenizer), _LIMITS[dtype])
    inputs = round_trip_inputs(tokenizer, model.config.context_length)
    verdict = run_checks([check], inputs, console=console, label=_PROGRESS)
    require_no_problems(verdict.problems, *_fix(merged, dtype))
    return verdict


def verify_merged_classifier(
    merged: Path, adapter: Path, base: Path, tokenizer: Tokenizer, longest: int, dtype: str, console: Console
) -> LabelAgreement:
    """Compare a merged classifier with its base model to which the adapter is applied.

    Args:
        merged: directory of the merged classifier.
        adapter: directory of the adapter.
        base: directory of the base model.
        tokenizer: tokenizer of the base model.
        longest: maximum number of tokens per text.
        dtype: data type of the merged weights, which determines the limits of the check.
        console: console that prints progress.

    Returns:
        The agreement.

    Raises:
        FormatError: the models do not agree.
    """
    reference, _ = classifier_with_adapter(load_model(base), adapter)
    classifier, _ = load_classifier(merged)
    agreement = compare_classifiers(reference, classifier, tokenizer, longest, console=console, label=_PROGRESS)
    require_no_problems(agreement.problems(_LIMITS[dtype]), *_fix(merged, dtype))
    return agreement


def _fix(merged: Path, dtype: str) -> tuple[str, ...]:
    """Return the arguments `what` and, if the dtype may cause the problem, `instead` of `require_no_problems`."""
    name = f"{merged.name} in {dtype}"
    return (name,) if dtype == "float32" else (name, "Use --dtype float32, which rounds less")
