"""Scores of applications that are stored with a model, and the line that reports a model below its baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from groundup.apps.catalog import CatalogEntry
from groundup.apps.test_set import AppOutputs
from groundup.core.artifact import read
from groundup.core.artifact.record import ARTIFACT
from groundup.core.files import shell_quoted, write_json
from groundup.evaluation.applications import baseline_measures, measures_of
from groundup.hub.adapted import content_digest
from groundup.hub.weight_files import is_gguf

FORMAT_VERSION = 1
_FILE = "applications.json"
_SUGGESTED = Path(__file__).with_name("suggested_models.json")


@dataclass(frozen=True, slots=True)
class AppScore:
    """Score of a model on the test set of an application.

    Attributes:
        metric: Name of the primary metric.
        score: Value of the metric.
        interval: 95 % interval of the score.
        items: Number of examples.
        unit: Unit of the metric.
        passed: Number of examples that count, or None if the metric is not a share of the examples.
        baseline: Name of the baseline, or "" if there is none.
        baseline_score: Value of the metric for the baseline.
        baseline_passed: Number of examples in which the baseline counts, or None.
        difference: 95 % interval of the paired difference to the baseline. Empty if there is no baseline.
        useful: Whether the score is significantly better than the baseline and at least the required score.
        test_digest: Digest of the declaration and the test set.
    """

    metric: str
    score: float
    interval: tuple[float | None, float | None]
    items: int
    unit: str
    passed: int | None
    baseline: str
    baseline_score: float | None
    baseline_passed: int | None
    difference: tuple[float | None, ...]
    useful: bool
    test_digest: str

    @property
    def sentence(self) -> str:
        """The score next to the baseline, such as "4 of 50 on its test, the baseline (TF-IDF) 9"."""
        if self.passed is not None:
            mine, other = f"{self.passed} of {self.items} on its test", str(self.baseline_passed)
        else:
            digits = 1 if self.unit == "points" else 3
            mine = f"{self.metric} {self.score:.{digits}f} on its test of {self.items}"
            other = f"{self.baseline_score or 0.0:.{digits}f}"
        return f"{mine}, the baseline ({self.baseline}) {other}" if self.baseline else mine


def score_of(outputs: AppOutputs, found: CatalogEntry, *, seed: int = 0) -> AppScore:
    """Return the score of a model on an application, compared with the application's baseline.

    Args:
        outputs: Outputs of the model and of the baseline for the test set.
        found: Application with the test set.
        seed: Random seed of the paired bootstrap.
    """
    assert found.app.test is not None
    measure = measures_of(outputs)[0]
    name, baseline = next(iter(baseline_measures(outputs).items()), ("", None))
    useful = measure.estimate >= found.app.test.required
    difference = None if baseline is None else measure.minus(baseline, seed=seed)
    if difference is not None:
        useful &= difference.high < 0 if measure.lower_is_better else difference.low > 0
    counted = bool(outputs.hits) or outputs.labelled
    passed = round(measure.estimate * len(outputs.references) / 100) if counted else None
    simple = None if baseline is None else baseline.estimate
    low, high = measure.interval(seed=seed).bounds
    return AppScore(
        measure.name,
        measure.estimate,
        (low, high),
        len(outputs.references),
        measure.unit,
        passed,
        name,
        simple,
        round(simple * len(outputs.references) / 100) if counted and simple is not None else None,
        () if difference is None else tuple(difference.bounds),
        useful,
        found.test_digest,
    )


def scores_file(model: Path) -> Path:
    """Return the file in which the scores of a model directory or GGUF file are stored."""
    return model.with_name(f"{model.name}.{_FILE}") if is_gguf(model) else model / _FILE


def stored_scores(model: Path) -> dict[str, AppScore]:
    """Return the stored scores of a model by application. Scores of other weights are ignored.

    Args:
        model: Model directory or GGUF file.
    """
    file = scores_file(model)
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["format_version"] != FORMAT_VERSION or stored["model"] != _model_digest(model):
            return {}
        return {name: _parsed(score) for name, score in stored["applications"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # The file can be missing, damaged, or from another version. It is written again.


def stored_score(model: Path, found: CatalogEntry) -> AppScore | None:
    """Return the stored score of one application, or None if there is none for this model and this test set."""
    score = stored_scores(model).get(found.app.name)
    return score if score is not None and score.test_digest == found.test_digest else None


def save_scores(model: Path, scores: Mapping[str, AppScore]) -> Path:
    """Store scores with a model, in addition to its stored scores of other applications.

    Args:
        model: Model directory or GGUF file.
        scores: Scores by application.

    Returns:
        The file.

    Raises:
        ResourceError: The file cannot be written.
    """
    merged = stored_scores(model) | dict(scores)
    shown = {name: asdict(score) for name, score in sorted(merged.items())}
    record = {"format_version": FORMAT_VERSION, "model": _model_digest(model), "applications": shown}
    write_json(scores_file(model), record)
    return scores_file(model)


def warning_of(found: CatalogEntry, score: AppScore) -> str | None:
    """Return the line that reports a model that is not better than the baseline, or None if it is better.

    Args:
        found: Application.
        score: Score of the model on the application.
    """
    if score.useful:
        return None
    assert found.app.test is not None
    required = found.app.test.required
    needed = f" and {required:.0f} % is the minimum" if required and score.score < required else ""
    return f"{score.sentence}{needed}: a demonstration, not a tool. {suggestion(found.app.name)}".rstrip()


def no_score_note(found: CatalogEntry, model: Path) -> str:
    """Return the note that shows how to measure a model on an application."""
    return (
        f"{found.app.name} was not tested with this model. To test it: groundup apps evaluate {found.app.name} "
        f"--model {shell_quoted(model)}"
    )


def suggestion(name: str) -> str:
    """Return a sentence with models that are suited for an application, or "" if none is known.

    Args:
        name: Name of the application.
    """
    known = _suggested()
    parts = [f"groundup run {recipe}" for recipe in _strings(known["recipes"].get(name))]
    models = known["models"]
    for model in _strings(known["applications"].get(name)):
        parts.append(f"{model} ({models[model]['memory_gb']:g} GB of memory)")
    return f"Better suited: {' or '.join(parts)}." if parts else ""


@cache
def _suggested() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_SUGGESTED.read_text(encoding="utf-8"))
    return found


def _strings(values: Iterable[str] | None) -> list[str]:
    return list(values or ())


def _parsed(values: dict[str, Any]) -> AppScore:
    low, high = values["interval"]
    return AppScore(**values | {"interval": (low, high), "difference": tuple(values["difference"])})


def _model_digest(model: Path) -> str:
    """Return a digest of all files that the outputs of a model depend on."""
    if not is_gguf(model) and (model / ARTIFACT).is_file():
        return read(model).digest
    return content_digest(model).hex()
