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

from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.plural import pluralize
from groundup.data.texts import general_texts
from groundup.evaluation.comparison import ComparisonReport, SeedComparison
from groundup.evaluation.measure import Measure, mean
from groundup.evaluation.model_comparison import TEXT_METRIC, text_bits_per_byte
from groundup.evaluation.prompt_search import PromptedModel
from groundup.evaluation.tasks import EvaluationTask, TaskModel, score_tasks
from groundup.hub.resolve import model_identity, resolve_any
from groundup.kernels import ComputeDtype, use_compute_dtype

MIN_SEEDS = 3
METHOD = "95 %, Student's t over seeds; of the difference: Welch's t"


@dataclass(frozen=True, slots=True)
class RecipeRules:
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
    before: Sequence[Path], after: Sequence[Path], rules: RecipeRules, console: Console
) -> ComparisonReport:
    """Compare two recipes by the means over their models.

    Args:
        before: directories of the models of the first recipe, one per seed; see `require_seeds`.
        after: directories of the models of the second recipe.
        rules: what to compare.
        console: console that prints progress.

    Returns:
        One comparison per metric. It is about the text or the task, with the seeds as examples.
    """
    texts = general_texts(rules.text, rules.max_bytes) if rules.text else []
    old, new = ([_scores(model, texts, rules, console) for model in models] for models in (before, after))
    comparisons = []
    for key, first in old[0].items():
        lower = first.lower_is_better
        was, now = (
            replace(mean(first.name, [scores[key].estimate for scores in of]), unit=first.unit, lower_is_better=lower)
            for of in (old, new)
        )
        what = f"{key[0]}, {len(before)} and {len(after)} seeds"
        comparisons.append(SeedComparison(was, now, 0, "general" if first.name == TEXT_METRIC else "task", what))
    note = "The intervals cover the seeds, not the choice of the items."
    return ComparisonReport(comparisons, [note], method=METHOD)


def _scores(path: Path, texts: Sequence[str], rules: RecipeRules, console: Console) -> dict[tuple[str, str], Measure]:
    """Return the metrics of a model, keyed by what is scored and the name of the metric."""
    model = TaskModel.load(path, rules.device, console, dtype=rules.dtype)
    found: dict[tuple[str, str], Measure] = {}
    if texts and isinstance(model.opened, PromptedModel):
        with use_compute_dtype(model.opened.model, model.dtype):
            score = text_bits_per_byte(model.opened, texts, f"text, {path.parent.name}/{path.name}", console)
        what = f"{sum(len(text.encode()) for text in texts):,} bytes"
        found[what, TEXT_METRIC] = mean(TEXT_METRIC, [score.bpb], unit="bits per byte", lower_is_better=True)
    for result in score_tasks(model, rules.tasks, console):
        found |= {(result.name, measure.name): measure for measure in result.measures}
    return found
