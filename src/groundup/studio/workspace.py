"""The runs, models and recipes that the Studio shows.

Requests identify runs, models and recipes by name and do not contain paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, STARTED, working_directory
from groundup.core.config import read_toml
from groundup.core.console import format_count
from groundup.core.errors import DataError, GroundupError
from groundup.core.facts import Facts
from groundup.core.files import read_json
from groundup.core.locks import lock_owner
from groundup.hub.resolve import has_chat_template, is_classifier, is_language_model
from groundup.recipes import bundled
from groundup.report.record import stage_name

RECIPE = "recipe.toml"
LOG = "studio.log"  # The output of a run that was started from the page.
State = Literal["done", "running", "stopped"]
Kind = Literal["base", "fine-tuned", "classifier"]
_NOT_ONLY_IN_RUNS = ("import", "report")  # A directory is not a run if it has records of only these stages.
_UNITS = {"finetune.classify": "texts", "finetune.instruct": "trained tokens"}
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class StageInfo:
    """One stage of a run.

    Attributes:
        id: Id of the stage, in the form `RUN/DIRECTORY`.
        directory: Output directory of the stage. While the stage is running, it is the working directory.
        stage: Name of the stage in a recipe.
        state: "done" if the stage is complete, "running", or "stopped" if the stage is incomplete and not running.
        headline: The most important number among the results, with its unit.
        summary: The result in one sentence.
        seconds: Wall time of the stage in seconds.
        finished_at: Time in ISO 8601 format at which the stage finished, or an empty string if it is incomplete.
        has_metrics: Whether the stage writes `metrics.jsonl`.
        unit: Plural noun for the items that `tokens_seen` in the metrics counts, such as "tokens" or "texts".
    """

    id: str
    directory: Path
    stage: str
    state: State
    headline: str
    summary: str
    seconds: float
    finished_at: str
    has_metrics: bool
    unit: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that users can open in the Studio.

    Attributes:
        name: `RUN/DIRECTORY` if the model is part of a run, otherwise the name of the model directory.
        directory: The model directory. While the model is in training, it is the directory of the training stage.
        run: Name of the run that contains the model, or None if the model is not part of a run.
        kind: "base", "fine-tuned" or "classifier".
        has_chat_template: Whether the model has a chat template. The Studio uses a model without one for completion.
        step: Training step of the newest checkpoint, or None if the model is not in training.
    """

    name: str
    directory: Path
    run: str | None
    kind: Kind
    has_chat_template: bool
    step: int | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run directory and its stages. The stages are sorted from oldest to newest."""

    name: str
    directory: Path
    running: bool
    has_recipe: bool
    has_report: bool
    stages: tuple[StageInfo, ...]


class Workspace:
    """The directory of runs and models that the Studio shows.

    Args:
        root: A directory that contains runs and models, a run directory, or a model directory.
        recipes: Directory that contains the user's recipes.
    """

    def __init__(self, root: Path, recipes: Path) -> None:
        self.root = root.resolve()
        self._recipes = recipes
        self._model = self.root if _is_model(self.root) else None
        directory = self.root.parent if self._model else self.root
        contains_runs = directory.is_dir() and any(_is_run(child) for child in _children(directory))
        self._run = directory if _is_run(directory) and not contains_runs else None

    @property
    def runs_directory(self) -> Path:
        """Directory in which new runs are created."""
        directory = self._run or self._model
        return directory.parent if directory else self.root

    @property
    def default_model(self) -> str | None:
        """Name of the model in the directory `root`, or None if `root` is not a model directory."""
        return next((model.name for model in self.models() if model.directory == self._model), None)

    def runs(self) -> list[RunInfo]:
        """Return all runs, sorted from newest to oldest."""
        runs = [_run_info(directory) for directory in self._run_directories()]
        return sorted(runs, key=lambda run: run.directory.stat().st_mtime, reverse=True)

    def models(self) -> list[ModelInfo]:
        """Return all models. Models that are part of runs come first."""
        models = [model for run in self._run_directories() for model in _models_of(run)]
        others = [self._model] if self._model and not self._run else []
        if not (self._run or self._model):
            others = [child for child in _children(self.root) if _is_model(child)]
        return models + [_model_info(directory, directory.name, None, "fine-tuned") for directory in others]

    def run(self, name: str) -> RunInfo:
        """Return the run with this name.

        Raises:
            DataError: The run does not exist.
        """
        directory = next((each for each in self._run_directories() if each.name == name), None)
        if directory is None:
            raise _not_found(name, "run")
        return _run_info(directory)

    def stage(self, stage_id: str) -> StageInfo:
        """Return the stage with this id.

        Raises:
            DataError: The stage does not exist.
        """
        stages = self.run(stage_id.partition("/")[0]).stages
        stage = next((stage for stage in stages if stage.id == stage_id), None)
        if stage is None:
            raise _not_found(stage_id, "stage")
        return stage

    def recipes(self) -> dict[str, Path]:
        """Return the recipes that users can start, as a dict from label to file.

        The dict contains the user's recipes, the bundled recipes, and the recipes in run directories.
        """
        files = sorted(self._recipes.glob("*.toml")) if self._recipes.is_dir() else []
        recipes = {path.name: path for path in files} | bundled()
        for run in self._run_directories():
            if (run / RECIPE).is_file():
                recipes[f"{run.name}/{RECIPE}"] = run / RECIPE
        return recipes

    def _run_directories(self) -> list[Path]:
        if self._run is not None:
            return [self._run]
        if self._model is not None:
            return []
        return [child for child in _children(self.root) if _is_run(child)]


def run_name(recipe: Path) -> str:
    """Return the run name that a recipe sets. If the recipe does not set it, return the file name without suffix."""
    try:
        name = read_toml(recipe).get("name")
    except GroundupError:
        name = None
    return name if isinstance(name, str) else recipe.stem


def newest_step(directory: Path) -> int | None:
    """Return the training step of the newest checkpoint of a stage, or None if the stage has no checkpoint."""
    checkpoints = directory / "checkpoints"
    names = (path.name for path in checkpoints.iterdir()) if checkpoints.is_dir() else ()
    return max((int(match[1]) for name in names if (match := _STEP.fullmatch(name))), default=None)


def _children(directory: Path) -> Iterator[Path]:
    for child in sorted(directory.iterdir()) if directory.is_dir() else ():
        if child.is_dir() and not child.name.startswith(".") and REPLACED_INFIX not in child.name:
            yield child


def _is_run(directory: Path) -> bool:
    if (directory / RECIPE).is_file() or (directory / LOG).is_file():  # The Studio creates the log before the recipe.
        return True
    stages = (_stage_info(directory, child) for child in _children(directory))
    return any(stage is not None and stage.stage not in _NOT_ONLY_IN_RUNS for stage in stages)


def _record_path(directory: Path) -> Path | None:
    """Return the path of the record of a stage, which has either finished or started."""
    return next((path for path in (directory / ARTIFACT, directory / STARTED) if path.is_file()), None)


def _is_model(directory: Path) -> bool:
    try:
        return directory.is_dir() and (is_language_model(directory) or is_classifier(directory))
    except GroundupError:  # A damaged config.json must not make the list of models fail.
        return False


def _run_info(directory: Path) -> RunInfo:
    stages = [stage for child in _children(directory) if (stage := _stage_info(directory, child))]
    stages.sort(key=lambda stage: (stage.finished_at or "~", stage.id))
    return RunInfo(
        name=directory.name,
        directory=directory,
        running=lock_owner(directory) is not None or any(stage.state == "running" for stage in stages),
        has_recipe=(directory / RECIPE).is_file(),
        has_report=any(stage.state == "done" for stage in stages),
        stages=tuple(stages),
    )


def _stage_info(run: Path, child: Path) -> StageInfo | None:
    directory = working_directory(child)
    path = _record_path(directory)
    record = Facts(_read(path, path.stat().st_mtime_ns)) if path else Facts(None)
    if path is None or not record:
        return None
    done = path.name == ARTIFACT
    stage, facts = stage_name(record.words("stage")), record.part("facts")
    return StageInfo(
        id=f"{run.name}/{child.name}",
        directory=directory,
        stage=stage,
        state="done" if done else "running" if lock_owner(child) is not None else "stopped",
        headline=_headline(stage, facts) if done else "",
        summary=_summary(facts) if done else "",
        seconds=record.number("seconds") or 0.0,
        finished_at=record.words("finished_at"),
        has_metrics=(directory / "metrics.jsonl").is_file(),
        unit=_UNITS.get(stage, "tokens"),
    )


@lru_cache(maxsize=512)
def _read(path: Path, mtime_ns: int) -> Any:
    """Return a record, or None if its file is damaged or has been deleted."""
    try:
        return read_json(path)
    except (GroundupError, OSError):
        return None


def _headline(stage: str, facts: Facts) -> str:
    if stage == "collect":
        size = sum(facts.count(split, "bytes") for split in ("train", "validation"))
        return f"{format_count(size, 'bytes')} of text"
    if stage == "tokenize":
        return f"vocabulary {facts.count('vocab_size'):,}"
    if stage == "evaluate" and (bpb := facts.number("bpb")) is not None:
        return f"{bpb:.3f} bits per byte"
    if (parameters := facts.number("parameters")) is not None:
        return f"{format_count(parameters)} parameters"
    return ""


def _summary(facts: Facts) -> str:
    summary = facts.words("summary")
    tokens = facts.number("tokens_seen")
    if not summary and tokens is not None:
        return f"{facts.count('parameters'):,} parameters, {round(tokens):,} tokens seen"
    return summary


def _models_of(run: Path) -> Iterator[ModelInfo]:
    for child in _children(run):
        name, stage = f"{run.name}/{child.name}", _stage_info(run, child)
        pretrained = stage is not None and stage.stage == "pretrain"
        if _is_model(child):
            yield _model_info(child, name, run.name, "base" if pretrained else "fine-tuned")
        elif pretrained and (step := newest_step(child)) is not None:
            yield ModelInfo(name, child, run.name, "base", has_chat_template=False, step=step)


def _model_info(directory: Path, name: str, run: str | None, kind: Kind) -> ModelInfo:
    if is_classifier(directory):
        return ModelInfo(name, directory, run, "classifier", has_chat_template=False)
    chats = has_chat_template(directory)
    return ModelInfo(name, directory, run, kind if chats or run else "base", has_chat_template=chats)


def _not_found(name: str, kind: str) -> DataError:
    return DataError(f"{kind} {name[:80]!r}", rule="not found", fix="Reload the page to list the current runs.")
