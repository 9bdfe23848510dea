"""Comparison of two recipes by the models that they trained with several seeds.

Two models are compared item by item. Two recipes are not: a model of the same recipe with another seed differs, often
by more than the interval over items shows. Therefore, each recipe needs at least three seeds, and the means over seeds
are compared with Welch's t interval (Welch 1947).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.plural import pluralize
from groundup.data.texts import general_texts
from groundup.evaluation.comparisons.examples import ComparisonReport, SeedComparison
from groundup.evaluation.comparisons.language_models import TEXT_METRIC, text_bits_per_byte
from groundup.evaluation.measure import Measure, mean
from groundup.evaluation.prompt_search import PromptedModel
from groundup.evaluation.tasks import EvaluationTask, TaskModel, TaskResult, on_shared_items, score_tasks
from groundup.hub.resolve import model_identity, resolve_any
from groundup.kernels import ComputeDtype, use_compute_dtype

MIN_SEEDS = 3
METHOD = "95 %, Student's t over seeds; of the difference: Welch's t"


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """What two recipes are compared on.

    Attributes:
        text: corpus, token shards, file or folder of held-out text, or None if bits per byte are not compared.
        max_bytes: approximate maximum number of bytes of text to score.
        tasks: tasks to score.
        dtype: data type to compute in; default: float32 for log-likelihoods, and the fastest for generation.
        device: device to compute on; default: a GPU if available.
    """

    text: Path | None = None
    max_bytes: int = 60_000
    tasks: Sequence[EvaluationTask] = ()
    dtype: ComputeDtype | None = None
    device: str | None = None


def models_of(paths: Sequence[Path]) -> list[Path]:
    """Return the models of a recipe.

    Args:
        paths: models, runs, or directories that contain runs.

    Raises:
        DataError: a path contains no model.
    """
    return [model for path in paths for model in _models_in(path)]


def _models_in(path: Path) -> list[Path]:
    try:
        return [resolve_any(path)]
    except DataError:
        found = []
        for child in sorted(path.iterdir()) if path.is_dir() else []:
            with suppress(DataError):
                found.append(resolve_any(child))
        if not found:
            raise
        return found


def require_seeds(before: Sequence[Path], after: Sequence[Path]) -> None:
    """Check that each recipe has enough models, and that no model is given twice.

    Args:
        before: models of the first recipe.
        after: models of the second recipe.

    Raises:
        ConfigError: a recipe has fewer than three models, or a model is given twice.
    """
    for flag, models in (("--before", before), ("--after", after)):
        if len(models) < MIN_SEEDS:
            raise ConfigError(
                f"{flag}: {pluralize(len(models), 'model')}",
                rule=f"a recipe needs at least {MIN_SEEDS} models with different seeds, because one seed can be lucky",
                fix=f"Train with other seeds (--set pretrain.seed=1), and give each run: {flag} RUN. To compare two "
                "models, use groundup compare.",
            )
    seen: dict[str, Path] = {}
    for model in (*before, *after):
        identity = model_identity(model)
        if identity in seen:
            raise ConfigError(
                f"{model} and {seen[identity]} are the same model",
                rule="each seed must be a separate training run",
                fix="Give each run once.",
            )
        seen[identity] = model


def compare_recipes(
    before: Sequence[Path], after: Sequence[Path], options: RecipeOptions, console: Console
) -> ComparisonReport:
    """Compare two recipes by the means over their models, which are all scored on the same items.

    Args:
        before: directories of the models of the first recipe, one per seed; see `require_seeds`.
        after: directories of the models of the second recipe.
        options: what to compare.
        console: console that prints progress.

    Returns:
        One comparison per metric. It is about the text or the task, with the seeds as examples.

    Raises:
        DataError: the models have different items, or only some of them are classifiers.
    """
    texts = general_texts(options.text, options.max_bytes) if options.text else []
    scores = [_scored(model, texts, options, console) for model in (*before, *after)]
    text, tasks = [of_text for of_text, _ in scores], [results for _, results in scores]
    if texts and len({measure is None for measure in text}) > 1:
        raise DataError(
            "some of the models are classifiers, which have no bits per byte",
            fix="Compare recipes of one kind of model.",
        )
    notes, comparisons = ["The intervals cover the seeds, not the choice of the items."], list[SeedComparison]()

    def compare(measures: Sequence[Measure], about: Literal["general", "task"], what: str) -> None:
        first, estimates = measures[0], [measure.estimate for measure in measures]
        was, now = (
            replace(mean(first.name, of), unit=first.unit, lower_is_better=first.lower_is_better)
            for of in (estimates[: len(before)], estimates[len(before) :])
        )
        seeds = f"{what}, {len(before)} and {len(after)} seeds"
        comparisons.append(SeedComparison(was, now, 0, about, seeds))

    if known := [measure for measure in text if measure is not None]:
        compare(known, "general", f"{sum(len(each.encode()) for each in texts):,} bytes")
    for of_models in zip(*tasks, strict=True):
        results, note = on_shared_items(of_models)
        notes += [note] if note else []
        what = f"{results[0].name}, {pluralize(len(results[0].items), 'item')}"
        for measures in zip(*(result.measures for result in results), strict=True):
            compare(measures, "task", what)
    return ComparisonReport(comparisons, notes, method=METHOD)


def _scored(
    path: Path, texts: Sequence[str], options: RecipeOptions, console: Console
) -> tuple[Measure | None, list[TaskResult]]:
    """Return the bits per byte of the text, or None for a classifier or without text, and the results of the tasks."""
    model = TaskModel.load(path, options.device, console, dtype=options.dtype)
    text = None
    if texts and isinstance(model.opened, PromptedModel):
        with use_compute_dtype(model.opened.model, model.dtype):
            score = text_bits_per_byte(model.opened, texts, f"text, {path.parent.name}/{path.name}", console)
        text = mean(TEXT_METRIC, [score.bpb], unit="bits per byte", lower_is_better=True)
    return text, score_tasks(model, options.tasks, console)
